import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError, ToolError
from meshhost.tools.schema import check_schema, check_value, is_strict, with_defs

CLOSED = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "sizes"],
    "properties": {"name": {"type": "string"}, "sizes": {"type": "array", "items": {"type": "integer"}}},
}


def test_a_value_that_fits_passes():
    check_value({"name": "a", "sizes": [1]}, CLOSED)


@pytest.mark.parametrize(
    ("value", "field", "text"),
    [
        ({"sizes": []}, "name", "is required"),
        ({"name": "a", "sizes": [1, "x"]}, "sizes[1]", "expected integer"),
        ({"name": "a", "sizes": [], "colour": 1}, "colour", "is not a known field"),
        ([], "", "expected object"),
    ],
)
def test_an_error_names_the_field_and_what_was_expected(value, field, text):
    with pytest.raises(InvalidRequestError) as caught:
        check_value(value, CLOSED)
    assert caught.value.field == field
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": ["string", "null"]}, "expected string or null"),
        ({"enum": ["a", "b"]}, "expected one of 'a', 'b'"),
        ({"anyOf": [{"multipleOf": 5}, {"minimum": 10}]}, "fits none of the forms"),
        ({"not": {}}, "fits none of the forms"),
        ({"minimum": 99}, "expected minimum 99"),
        (False, "no value is allowed"),
    ],
)
def test_every_kind_of_rule_is_explained(schema, text):
    with pytest.raises(InvalidRequestError, match=text):
        check_value(7, schema)


def test_unknown_fields_that_fit_a_pattern_are_not_blamed():
    schema = {"properties": {}, "patternProperties": {"^x-": {}}, "additionalProperties": False}
    with pytest.raises(InvalidRequestError) as caught:
        check_value({"x-a": 1, "b": 2}, schema)
    assert caught.value.field == "b"


@given(st.text(min_size=12))
def test_the_value_never_shows_in_the_error(secret):
    with pytest.raises(InvalidRequestError) as caught:
        check_value({"name": 1, "sizes": secret}, CLOSED)
    assert secret not in str(caught.value)


def test_a_wrong_schema_is_the_tools_fault():
    with pytest.raises(ToolError, match="schema is wrong at properties"):
        check_value({}, {"properties": {"a": {"type": "colour"}}})


def test_references_are_never_fetched():
    with pytest.raises(ToolError, match="does not define"):
        check_value({}, {"$ref": "http://127.0.0.1/schema.json"})


def test_defs_are_found_under_the_schema():
    schema = with_defs({"$ref": "#/$defs/size"}, {"size": {"type": "integer"}})
    check_value(1, schema)
    with pytest.raises(InvalidRequestError):
        check_value("1", schema)
    assert with_defs(CLOSED, None) is CLOSED


def test_endless_recursion_is_refused():
    with pytest.raises(InvalidRequestError, match="too deeply"):
        check_value({}, {"$ref": "#"})


@pytest.mark.parametrize(
    ("schema", "field"),
    [({"type": "nonsense"}, "type: "), ({"properties": {"a": {"minimum": "x"}}}, "properties.a.minimum: ")],
)
def test_what_is_no_schema_is_refused_by_its_field(schema, field):
    check_schema({"type": "object", "properties": {"a": True}})
    with pytest.raises(InvalidRequestError, match="is not valid in a JSON schema") as caught:
        check_schema(schema)
    assert str(caught.value).startswith(field)


def test_a_schema_that_is_nested_too_deeply_is_refused():
    schema = {}
    for _ in range(5000):
        schema = {"not": schema}
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("change", "strict"),
    [
        ({}, True),
        ({"required": ["name"]}, False),
        ({"additionalProperties": True}, False),
        ({"properties": {"name": {}, "sizes": {"type": "string"}}}, False),
        ({"properties": {"name": {"oneOf": []}, "sizes": {"type": "string"}}}, False),
        ({"properties": {"name": {"type": "array"}, "sizes": {"type": "string"}}}, False),
        ({"$defs": {"x": {"type": "object"}}}, False),
        ({"type": "array"}, False),
    ],
)
def test_only_closed_schemas_are_strict(change, strict):
    assert is_strict({**CLOSED, **change}) is strict


def test_what_is_no_object_is_not_strict():
    assert not is_strict(True)
