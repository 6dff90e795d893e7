"""JSON schemas of tools: checking values against them, and whether a model can be held to one strictly."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from meshhost.errors import InvalidRequestError, ToolError

__all__ = ["Schema", "check_schema", "check_value", "is_strict", "with_defs"]

Schema: TypeAlias = dict[str, Any]

# Keywords OpenAI's strict mode does not take; a schema that uses one is sent as a hint instead.
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
_NOTHING: Registry[Any] = Registry()


def with_defs(schema: Schema, defs: Mapping[str, Schema] | None) -> Schema:
    """The schema with `defs` under `$defs`."""
    return {**schema, "$defs": {**schema.get("$defs", {}), **defs}} if defs else schema


def check_schema(schema: Schema) -> None:
    """Return when this is a JSON schema. Raises InvalidRequestError naming what is wrong."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as wrong:
        raise InvalidRequestError(_path(wrong.path), "is not valid in a JSON schema") from None
    except RecursionError:
        raise InvalidRequestError("", "the schema is nested too deeply") from None


def check_value(value: Any, schema: Schema) -> None:
    """Return when the value fits the schema.

    Raises InvalidRequestError naming the field and what was expected, never the value; ToolError when the schema itself is
    wrong. References are looked up in the schema only, never fetched.
    """
    try:
        Draft202012Validator.check_schema(schema)
        error = best_match(Draft202012Validator(schema, registry=_NOTHING).iter_errors(value))
    except SchemaError as wrong:
        raise ToolError(f"the schema is wrong at {_path(wrong.path) or 'its root'}") from None
    except Unresolvable as unknown:
        raise ToolError(f"the schema refers to {unknown.ref}, which it does not define") from None
    except RecursionError:
        raise InvalidRequestError("", "the value or its schema is nested too deeply") from None
    if error is not None:
        raise _explain(error)


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
    """Whether every object in the schema lists all its fields as required and forbids others, with simple keywords only."""
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
