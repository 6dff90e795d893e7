"""MeshSchema: which elements a document may have, with which attributes and children (room-protocol §13).

A schema is read from JSON or built from these classes, which are named as in `meshagent.api.schema`. `MeshDocument` checks
local edits against it, and the room server the content of new documents. Invariant: a schema that was built fits together
(every tag that it refers to is defined), so users of it need no checks of their own. Errors are InvalidRequestError and
name the element.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from meshhost.errors import InvalidRequestError

__all__ = [
    "ChildProperty",
    "ElementProperty",
    "ElementType",
    "MeshSchema",
    "SimpleValue",
    "ValueProperty",
    "is_scalar",
    "is_unicode",
]

SimpleValue: TypeAlias = Literal["number", "string", "null", "boolean"]

_REF = "#/$defs/"
# Numbers are floats on the wire; integers beyond this would come back as others.
_MAX_INTEGER = 2**53


class ElementProperty:
    """A property of an element: a value, or its children."""

    def __init__(self, name: str, description: str | None = None) -> None:
        self.name = name
        self.description = description

    def validate(self, schema: MeshSchema) -> None:
        """Raise InvalidRequestError when it cannot be part of the schema."""

    def to_json(self) -> dict[str, Any]:
        """Return the property's JSON schema under its name."""
        description = {} if self.description is None else {"description": self.description}
        return {self.name: self._json() | description}

    def _json(self) -> dict[str, Any]:
        raise NotImplementedError


class ValueProperty(ElementProperty):
    """An attribute of a simple type; `enum` limits its values. One that is `nullable` may also be null, as SDK 0.56 has it."""

    def __init__(
        self,
        *,
        name: str,
        type: SimpleValue,
        description: str | None = None,
        enum: list[Any] | None = None,
        nullable: bool = False,
    ) -> None:
        super().__init__(name, description)
        self.type: SimpleValue = type
        self.enum = enum
        self.nullable = nullable

    def validate(self, schema: MeshSchema) -> None:
        """See ElementProperty."""
        if self.type not in get_args(SimpleValue):
            raise InvalidRequestError(self.name, f"expected a type out of {', '.join(get_args(SimpleValue))}")

    def check(self, value: Any) -> None:
        """Raise InvalidRequestError when this cannot be the attribute's value."""
        if value is None and self.nullable:
            return
        if not _is_of_type(value, self.type):
            raise InvalidRequestError(self.name, f"expected a value of type {self.type}")
        if self.enum is not None and value not in self.enum:
            raise InvalidRequestError(self.name, f"expected one of {', '.join(map(repr, self.enum))}")

    def _json(self) -> dict[str, Any]:
        kind: Any = [self.type, "null"] if self.nullable else self.type
        return {"type": kind} if self.enum is None else {"type": kind, "enum": self.enum}


class ChildProperty(ElementProperty):
    """The children: any number of elements of these tags. `ordered`: one of each, in this order."""

    def __init__(
        self, *, name: str, child_tag_names: list[str], description: str | None = None, ordered: bool = False
    ) -> None:
        super().__init__(name, description)
        self.child_tag_names = child_tag_names
        self.ordered = ordered

    def validate(self, schema: MeshSchema) -> None:
        """See ElementProperty."""
        for tag_name in self.child_tag_names:
            schema.element(tag_name)

    def is_tag_allowed(self, tag_name: str) -> bool:
        """Return whether an element of this tag may be a child."""
        return tag_name in self.child_tag_names

    def _json(self) -> dict[str, Any]:
        refs = [{"$ref": f"{_REF}{tag_name}"} for tag_name in self.child_tag_names]
        if self.ordered:
            return {"type": "array", "prefixItems": refs, "items": False}
        return {"type": "array", "items": {"anyOf": refs}}


class ElementType:
    """The elements of one tag. At most one of the properties is a ChildProperty."""

    def __init__(self, *, tag_name: str, properties: Sequence[ElementProperty], description: str | None = None) -> None:
        self.tag_name = tag_name
        self.properties = list(properties)
        self.description = description
        self._by_name = {each.name: each for each in properties}
        if len(self._by_name) < len(self.properties):
            raise InvalidRequestError(tag_name, "two properties have the same name")
        children = [each for each in properties if isinstance(each, ChildProperty)]
        if len(children) > 1:
            raise InvalidRequestError(tag_name, "only one property may hold the children")
        self.children = children[0] if children else None

    @property
    def child_property_name(self) -> str | None:
        """The name of the property that holds the children, if elements of this tag may have any."""
        return None if self.children is None else self.children.name

    @staticmethod
    def from_json(json: dict[str, Any]) -> ElementType:
        """Read an element's definition. Raises InvalidRequestError."""
        described = _object(json, "element")
        definitions = _object(described.get("properties"), "properties")
        if len(definitions) != 1:
            raise InvalidRequestError("properties", "expected one member: the tag of the element")
        ((tag_name, definition),) = definitions.items()
        with_properties = _object(_object(definition, tag_name).get("properties", {}), f"{tag_name}.properties")
        properties = [_property(tag_name, name, each) for name, each in with_properties.items()]
        return ElementType(tag_name=tag_name, properties=properties, description=_description(described))

    def to_json(self) -> dict[str, Any]:
        """Return the element's definition."""
        members: dict[str, Any] = {}
        for each in self.properties:
            members |= each.to_json()
        content = {
            "type": "object",
            "additionalProperties": False,
            "required": [each.name for each in self.properties],
            "properties": members,
        }
        result = {
            "type": "object",
            "additionalProperties": False,
            "required": [self.tag_name],
            "properties": {self.tag_name: content},
        }
        return result if self.description is None else result | {"description": self.description}

    def validate(self, schema: MeshSchema) -> None:
        """Raise InvalidRequestError when the element cannot be part of the schema."""
        if not self.tag_name:
            raise InvalidRequestError("tag_name", "expected a name")
        for each in self.properties:
            try:
                each.validate(schema)
            except InvalidRequestError as error:
                raise InvalidRequestError(f"{self.tag_name}.{each.name}", str(error)) from None

    def property(self, name: str) -> ElementProperty:
        """Return the property of this name. Raises InvalidRequestError."""
        found = self._by_name.get(name)
        if found is None:
            raise InvalidRequestError(name, f"no property of {self.tag_name!r}")
        return found

    def check_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Raise InvalidRequestError when an element of this tag cannot have these attributes."""
        for name, value in attributes.items():
            found = self.property(name)
            if not isinstance(found, ValueProperty):
                raise InvalidRequestError(name, f"holds the children of {self.tag_name!r}: add elements instead")
            found.check(value)

    def check_child(self, tag_name: str) -> None:
        """Raise InvalidRequestError when an element of this tag cannot have such a child."""
        if self.children is None:
            raise InvalidRequestError(tag_name, f"{self.tag_name!r} has no children")
        if not self.children.is_tag_allowed(tag_name):
            expected = ", ".join(self.children.child_tag_names)
            raise InvalidRequestError(tag_name, f"no child of {self.tag_name!r}: expected one of {expected}")


class MeshSchema:
    """The elements of a document, and which of them is its root. Raises InvalidRequestError when they do not fit."""

    def __init__(self, *, root_tag_name: str, elements: list[ElementType]) -> None:
        self._root_tag_name = root_tag_name
        self.elements = elements
        self.elements_by_tag_name = {each.tag_name: each for each in elements}
        if len(self.elements_by_tag_name) < len(elements):
            raise InvalidRequestError("elements", "two elements have the same tag")
        self.element(root_tag_name)
        self.validate()

    @staticmethod
    def from_json(json: dict[str, Any]) -> MeshSchema:
        """Read a schema. Raises InvalidRequestError that names what is wrong."""
        whole = _object(json, "schema")
        root = _tag_of(whole.get("$root_tag_ref"), "$root_tag_ref")
        elements = []
        for name, definition in _object(whole.get("$defs"), "$defs").items():
            try:
                elements.append(ElementType.from_json(definition))
            except InvalidRequestError as error:
                raise InvalidRequestError(f"$defs.{name}", str(error)) from None
        return MeshSchema(root_tag_name=root, elements=elements)

    def to_json(self) -> dict[str, Any]:
        """Return the schema in the form that `from_json` reads, which is also a JSON Schema of `MeshDocument.to_json`."""
        return {
            "$root_tag_ref": f"{_REF}{self._root_tag_name}",
            **self.root.to_json(),
            "$defs": {each.tag_name: each.to_json() for each in self.elements},
        }

    def element(self, name: str) -> ElementType:
        """Return the element type of this tag. Raises InvalidRequestError."""
        found = self.elements_by_tag_name.get(name)
        if found is None:
            raise InvalidRequestError(name, "no element of this tag is defined in the schema")
        return found

    def validate(self) -> None:
        """Raise InvalidRequestError when the elements do not fit together."""
        for each in self.elements:
            each.validate(self)

    @property
    def root(self) -> ElementType:
        """The element that a document is made of."""
        return self.element(self._root_tag_name)


def _property(tag_name: str, name: str, json: Any) -> ElementProperty:
    where = f"{tag_name}.{name}"
    definition = _object(json, where)
    description = _description(definition)
    if definition.get("type") != "array":
        enum = definition.get("enum")
        if enum is not None and not isinstance(enum, list):
            raise InvalidRequestError(f"{where}.enum", "expected a list")
        kind: Any = definition.get("type")
        nullable = isinstance(kind, list) and len(kind) == 2 and "null" in kind
        if nullable:
            kind = next((each for each in kind if each != "null"), "null")
        if isinstance(kind, list) or kind not in get_args(SimpleValue):
            raise InvalidRequestError(f"{where}.type", f"expected one of {', '.join(get_args(SimpleValue))}")
        return ValueProperty(name=name, type=kind, description=description, enum=enum, nullable=nullable)
    ordered = "prefixItems" in definition
    items = definition.get("prefixItems") if ordered else _any_of(definition.get("items"))
    if not isinstance(items, list):
        raise InvalidRequestError(where, "expected items of anyOf, or prefixItems")
    tags = list(_tags_of(items, where))
    return ChildProperty(name=name, child_tag_names=tags, description=description, ordered=ordered)


def _tags_of(items: list[Any], where: str) -> Iterator[str]:
    for item in items:
        yield _tag_of(item.get("$ref") if isinstance(item, dict) else None, f"{where}.$ref")


def _any_of(items: Any) -> Any:
    return items.get("anyOf") if isinstance(items, dict) else None


def _tag_of(ref: Any, where: str) -> str:
    if not isinstance(ref, str) or not ref.startswith(_REF):
        raise InvalidRequestError(where, f"expected a reference {_REF}TAG")
    return ref.removeprefix(_REF)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError(where, "expected a JSON object")
    return value


def _description(json: dict[str, Any]) -> str | None:
    description = json.get("description")
    return description if isinstance(description, str) else None


def is_scalar(value: Any) -> bool:
    """Return whether a document can keep the value."""
    return any(_is_of_type(value, kind) for kind in get_args(SimpleValue))


def is_unicode(text: Any) -> bool:
    """Return whether this is a text without lone surrogates."""
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_of_type(value: Any, type: SimpleValue) -> bool:
    match value:
        case None:
            return type == "null"
        case bool():
            return type == "boolean"
        case int():
            return type == "number" and abs(value) <= _MAX_INTEGER
        case float():
            return type == "number" and math.isfinite(value)
        case _:
            return type == "string" and is_unicode(value)
