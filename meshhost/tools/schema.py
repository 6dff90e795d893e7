"""JSON schemas of tools and agents: checking values, with errors that name the field, and OpenAI's strict mode.

`CompiledSchema` checks a schema once and then any number of values against it: checking the schema takes far longer than
checking a value (milliseconds against some ten microseconds), so a caller that checks often keeps one. `check_value` does
both at once. Errors name the field and what was expected, never the value, which may be secret. A schema comes from other
participants, too: references are looked up in the schema itself only and are never fetched.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from meshhost.errors import InvalidRequestError, ToolError

__all__ = ["CompiledSchema", "Schema", "check_schema", "check_value", "is_strict", "with_defs"]

Schema: TypeAlias = dict[str, Any]

# Keywords that OpenAI's strict mode does not accept; a schema with one of them is sent as a hint only.
_LOOSE = frozenset(
    (
        "allOf",
        "contains",
        "default",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "maxProperties",
        "minContains",
        "minProperties",
        "not",
        "oneOf",
        "patternProperties",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    )
)
_NO_OTHER_SCHEMAS: Registry[Any] = Registry()


def with_defs(schema: Schema, defs: Mapping[str, Schema] | None) -> Schema:
    """Return the schema with `defs` added to its `$defs`; the schema itself when there are none."""
    return {**schema, "$defs": {**schema.get("$defs", {}), **defs}} if defs else schema


def check_schema(schema: Schema) -> None:
    """Check that this is a JSON schema (draft 2020-12). Raises InvalidRequestError that names the wrong part."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as wrong:
        raise InvalidRequestError(_path(wrong.path), "is not valid in a JSON schema") from None
    except RecursionError:
        raise InvalidRequestError("", "the schema is nested too deeply") from None


class CompiledSchema:
    """A checked JSON schema, to check values against. Raises ToolError when the schema is wrong.

    The schema must not be edited afterwards. InvalidRequestError for one that is nested too deeply.
    """

    __slots__ = ("_validator",)

    def __init__(self, schema: Schema) -> None:
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as wrong:
            raise ToolError(f"the schema is wrong at {_path(wrong.path) or 'its root'}") from None
        except RecursionError:
            raise InvalidRequestError("", "the value or its schema is nested too deeply") from None
        self._validator = Draft202012Validator(schema, registry=_NO_OTHER_SCHEMAS)

    def check(self, value: Any) -> None:
        """Check a value.

        Raises InvalidRequestError that names the field and what was expected, never the value; ToolError when the schema
        refers to something it does not define.
        """
        try:
            error = best_match(self._validator.iter_errors(value))
        except Unresolvable as unknown:
            raise ToolError(f"the schema refers to {unknown.ref}, which it does not define") from None
        except RecursionError:
            raise InvalidRequestError("", "the value or its schema is nested too deeply") from None
        if error is not None:
            raise _explain(error)


def check_value(value: Any, schema: Schema) -> None:
    """Check a schema and a value against it, once. Raises as CompiledSchema does."""
    CompiledSchema(schema).check(value)


def _explain(error: ValidationError) -> InvalidRequestError:
    path = _path(error.absolute_path)
    wanted: Any = error.validator_value
    value: Any = error.instance
    keyword: Any = error.validator
    match keyword:
        case "required":
            missing = next((name for name in wanted if name not in value), "")
            return InvalidRequestError(f"{path}.{missing}".lstrip("."), "is required")
        case "additionalProperties" if wanted is False:
            return InvalidRequestError(f"{path}.{_unknown(error)}".lstrip("."), "is not a known field")
        case "type":
            return InvalidRequestError(path, f"expected {' or '.join([wanted] if isinstance(wanted, str) else wanted)}")
        case "enum":
            return InvalidRequestError(path, f"expected one of {', '.join(map(repr, wanted))}")
        case "anyOf" | "oneOf" | "allOf" | "not" | "if":
            return InvalidRequestError(path, "fits none of the forms that are allowed")
        case None:
            return InvalidRequestError(path, "no value is allowed here")
        case _:
            return InvalidRequestError(path, f"expected {keyword} {wanted!r}"[:200])


def _unknown(error: ValidationError) -> str:
    schema = error.schema if isinstance(error.schema, dict) else {}
    patterns = schema.get("patternProperties", {})
    value: Any = error.instance
    for name in value:
        if name not in schema.get("properties", {}) and not any(re.search(pattern, name) for pattern in patterns):
            return str(name)[:100]
    return ""


def _path(parts: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode accepts the schema: every object requires all its fields and forbids others."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    return _is_strict_part(schema)


def _is_strict_part(part: Any) -> bool:
    if not isinstance(part, dict) or not part or part.keys() & _LOOSE:
        return False
    types = part.get("type")
    if (types == "object" or (isinstance(types, list) and "object" in types)) and not _is_closed(part):
        return False
    return all(map(_is_strict_part, _children(part)))


def _is_closed(part: Schema) -> bool:
    return part.get("additionalProperties") is False and set(part.get("required", ())) == set(
        part.get("properties", ())
    )


def _children(part: Schema) -> Iterable[Any]:
    yield from part.get("properties", {}).values()
    yield from part.get("$defs", {}).values()
    yield from part.get("anyOf", ())
    if part.get("type") == "array" or "items" in part:
        yield part.get("items")
