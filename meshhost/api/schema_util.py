"""The functions of `meshagent.api.schema_util`: JSON schemas that agents often have.

For MeshAgent programs, which import them from this path after the package is renamed; meshhost itself does not use them. Names
and arguments are MeshAgent's and must stay so.
"""

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["merge", "no_arguments_schema", "prompt_schema", "validation_schema"]


def no_arguments_schema(description: str | None = None) -> dict[str, Any]:
    """Return the schema of an object without members."""
    return _object(description, {})


def prompt_schema(description: str) -> dict[str, Any]:
    """Return the schema of an object with one member, the text `prompt`."""
    return _object(description, {"prompt": {"type": "string", "description": "what the agent is to do"}})


def validation_schema(description: str) -> dict[str, Any]:
    """Return the schema of a verdict: `is_valid`, and a `message` that says why."""
    return _object(description, {"is_valid": {"type": "boolean"}, "message": {"type": "string"}})


def merge(*, schema: Mapping[str, Any], additional_properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the schema of an object that has, and requires, these properties besides."""
    merged = copy.deepcopy(dict(schema))
    merged["properties"] = {**merged.get("properties", {}), **additional_properties}
    merged["required"] = list(dict.fromkeys([*merged.get("required", ()), *additional_properties]))
    return merged


def _object(description: str | None, properties: dict[str, Any]) -> dict[str, Any]:
    described = {} if description is None else {"description": description}
    return {
        "type": "object",
        **described,
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }
