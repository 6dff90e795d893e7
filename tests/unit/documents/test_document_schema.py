"""Schemas say what is wrong with them, and by name."""

import json
from typing import Any

import pytest

from meshhost.documents.schema import (
    ChildProperty,
    ElementProperty,
    ElementType,
    MeshSchema,
    ValueProperty,
    is_scalar,
    is_unicode,
)
from meshhost.errors import InvalidRequestError


def element(tag: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {tag: {"type": "object", "properties": properties}}}


def whole(**elements: Any) -> dict[str, Any]:
    return {"$root_tag_ref": "#/$defs/page", "$defs": elements}


def test_a_schema_is_read_as_it_was_written(schema: MeshSchema) -> None:
    written = json.loads(json.dumps(schema.to_json()))
    again = MeshSchema.from_json(written)
    assert again.to_json() == written
    assert again.root.tag_name == "page"
    assert again.element("section").description == "a part"
    title = again.element("section").property("title")
    assert isinstance(title, ValueProperty)
    assert (title.type, title.description) == ("string", "its name")
    assert again.element("section").child_property_name == "blocks"
    assert again.element("note").child_property_name is None


def test_the_written_form_is_a_json_schema_of_the_document() -> None:
    row = ChildProperty(name="cells", child_tag_names=["cell", "cell"], ordered=True, description="two")
    schema = MeshSchema(
        root_tag_name="row",
        elements=[ElementType(tag_name="row", properties=[row]), ElementType(tag_name="cell", properties=[])],
    )
    written = schema.to_json()
    assert written["$root_tag_ref"] == "#/$defs/row"
    assert written["properties"]["row"]["required"] == ["cells"]
    cells = written["properties"]["row"]["properties"]["cells"]
    assert cells == {
        "type": "array",
        "prefixItems": [{"$ref": "#/$defs/cell"}] * 2,
        "items": False,
        "description": "two",
    }
    again = MeshSchema.from_json(written).root.children
    assert again is not None
    assert (again.ordered, again.child_tag_names) == (True, ["cell", "cell"])


@pytest.mark.parametrize(
    ("json", "named"),
    [
        ([], "schema: expected a JSON object"),
        ({"$defs": {}}, r"\$root_tag_ref: expected a reference"),
        ({"$root_tag_ref": "page", "$defs": {}}, r"\$root_tag_ref: expected a reference"),
        ({"$root_tag_ref": "#/$defs/page"}, r"\$defs: expected a JSON object"),
        (whole(), "page: no element of this tag"),
        (whole(page=3), r"\$defs.page: element: expected a JSON object"),
        (whole(page={}), r"\$defs.page: properties: expected a JSON object"),
        (whole(page={"properties": {}}), r"\$defs.page: properties: expected one member"),
        (whole(page={"properties": {"page": 3}}), "page: expected a JSON object"),
        (whole(page=element("")), "page: no element"),
        (whole(page=element("page"), again=element("page")), "elements: two elements have the same tag"),
        (whole(page=element("page"), x=element("")), "tag_name: expected a name"),
        (whole(page=element("page", a=3)), r"\$defs.page: page.a: expected a JSON object"),
        (whole(page=element("page", a={"type": "integer"})), "page.a.type: expected one of number"),
        (whole(page=element("page", a={"type": ["string"]})), "page.a.type: expected one of number"),
        (whole(page=element("page", a={"type": "string", "enum": "x"})), "page.a.enum: expected a list"),
        (whole(page=element("page", a={"type": "array"})), "page.a: expected items of anyOf"),
        (whole(page=element("page", a={"type": "array", "items": {"anyOf": [3]}})), r"page.a.\$ref: expected a ref"),
        (
            whole(page=element("page", a={"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/no"}]}})),
            "page.a: no: no element of this tag",
        ),
        (
            whole(
                page=element(
                    "page", a={"type": "array", "items": {"anyOf": []}}, b={"type": "array", "prefixItems": []}
                )
            ),
            "page: only one property may hold the children",
        ),
    ],
)
def test_what_is_wrong_with_a_schema_is_named(json: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        MeshSchema.from_json(json)


def test_schemas_built_in_python_are_checked_too() -> None:
    wrong: Any = "integer"
    with pytest.raises(InvalidRequestError, match="a: a: expected a type out of"):
        MeshSchema(
            root_tag_name="x", elements=[ElementType(tag_name="x", properties=[ValueProperty(name="a", type=wrong)])]
        )
    with pytest.raises(InvalidRequestError, match="x: two properties have the same name"):
        ElementType(tag_name="x", properties=[ValueProperty(name="a", type="null")] * 2)
    plain = ElementProperty("a")
    plain.validate(MeshSchema(root_tag_name="x", elements=[ElementType(tag_name="x", properties=[plain])]))
    with pytest.raises(NotImplementedError):
        plain.to_json()


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"title": 3}, "title: expected a value of type string"),
        ({"title": "\ud800"}, "title: expected a value of type string"),
        ({"title": []}, "title: expected a value of type string"),
        ({"title": None}, "title: expected a value of type string"),
        ({"level": "3"}, "level: expected a value of type number"),
        ({"level": True}, "level: expected a value of type number"),
        ({"level": float("nan")}, "level: expected a value of type number"),
        ({"level": 2**60}, "level: expected a value of type number"),
        ({"open": 1}, "open: expected a value of type boolean"),
        ({"nothing": 0}, "nothing: expected a value of type null"),
        ({"state": "lost"}, "state: expected one of 'draft', 'done'"),
        ({"colour": "red"}, "colour: no property of 'section'"),
        ({"blocks": []}, "blocks: holds the children of 'section'"),
    ],
)
def test_attributes_are_checked(schema: MeshSchema, attributes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        schema.element("section").check_attributes(attributes)


def test_good_attributes_and_children_pass(schema: MeshSchema) -> None:
    section = schema.element("section")
    section.check_attributes({"title": "é", "level": 1.5, "open": True, "nothing": None, "state": "done"})
    section.check_attributes({"level": 3})
    section.check_child("note")
    with pytest.raises(InvalidRequestError, match="page: no child of 'section': expected one of section, note, text"):
        section.check_child("page")
    with pytest.raises(InvalidRequestError, match="section: 'note' has no children"):
        schema.element("note").check_child("section")


def test_what_a_document_can_keep() -> None:
    assert all(map(is_scalar, ["a", 1, 1.5, True, None]))
    assert not any(map(is_scalar, [[], {}, float("inf"), "\udc00", b""]))
    assert is_unicode("ok")
    assert not is_unicode(3)
