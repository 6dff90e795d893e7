"""Content of a document as JSON, and the checks that it must pass before anything of it is written.

An element is `{tag: {attribute: value, children: [...]}}`, where the schema names the member with the children; a text is
`{"text": {"delta": [run, ...]}}`, each run `{"insert": text, "attributes": formats}`. `Element.append_json` and new documents
check the whole content here first: an edit cannot be undone, so content that is wrong anywhere must change nothing. Errors are
InvalidRequestError and name the element or attribute. Pure functions.
"""

from collections.abc import Mapping
from typing import Any

from meshhost.documents.schema import MeshSchema, is_scalar, is_unicode
from meshhost.errors import InvalidRequestError

__all__ = ["ID_ATTRIBUTE", "TEXT_TAG", "check_depth", "check_element", "check_formats", "check_text", "tag_and_content"]

# The attribute that names an element; it is set when the element is made, schemas do not define it.
ID_ATTRIBUTE = "$id"
# Elements of this tag hold one rich text instead of elements.
TEXT_TAG = "text"
# Code that walks a tree by recursion must not reach Python's recursion limit.
_MAX_DEPTH = 100


def tag_and_content(json: Any) -> tuple[str, dict[str, Any]]:
    """Split `{tag: content}`. Raises InvalidRequestError for any other shape."""
    if not isinstance(json, dict) or len(json) != 1:
        raise InvalidRequestError("json", "expected an object with one member: the tag of the element")
    ((tag_name, content),) = json.items()
    if not isinstance(content, dict):
        raise InvalidRequestError(str(tag_name), "expected an object of attributes and children")
    return tag_name, content


def check_element(schema: MeshSchema, json: Any, depth: int) -> None:
    """Raise InvalidRequestError when this cannot be an element, with all in it, at this depth of a document of the schema."""
    tag_name, content = tag_and_content(json)
    element = schema.element(tag_name)
    name = element.child_property_name
    element.check_attributes({key: value for key, value in content.items() if key != name})
    children = content.get(name, []) if name is not None else []
    if not isinstance(children, list):
        raise InvalidRequestError(f"{tag_name}.{name}", "expected a list of elements")
    check_depth(tag_name, depth)
    for child in children:
        if tag_name == TEXT_TAG:
            _check_runs(child)
        else:
            element.check_child(tag_and_content(child)[0])
            check_element(schema, child, depth + 1)


def check_depth(tag_name: str, depth: int) -> None:
    """Raise InvalidRequestError when an element would be too deep; the root has depth 0."""
    if depth > _MAX_DEPTH:
        raise InvalidRequestError(tag_name, f"elements are at most {_MAX_DEPTH} deep in each other")


def check_text(text: Any) -> None:
    """Raise InvalidRequestError when this is not a text that a document can keep."""
    if not is_unicode(text):
        raise InvalidRequestError("text", "expected Unicode text, without lone surrogates")


def check_formats(formats: Mapping[str, Any]) -> None:
    """Raise InvalidRequestError when a format's name is not Unicode or its value is not a JSON scalar."""
    for name, value in formats.items():
        if not is_unicode(name) or not is_scalar(value):
            raise InvalidRequestError(str(name), "expected a format that is a JSON scalar")


def _check_runs(json: Any) -> None:
    tag_name, content = tag_and_content(json)
    runs = content.get("delta")
    if tag_name != "text" or not isinstance(runs, list):
        raise InvalidRequestError("text", 'expected {"text": {"delta": [...]}}')
    for run in runs:
        if not isinstance(run, dict) or not isinstance(run.get("attributes") or {}, dict):
            raise InvalidRequestError("delta", 'expected runs {"insert": text, "attributes": formats}')
        check_text(run.get("insert"))
        check_formats(run.get("attributes") or {})
