"""Parses JSON that a user gave as an option or in a file, with errors that name the option and the position."""

import json
import sys
from pathlib import Path
from typing import Any

import typer

from meshhost.protocol.json_values import load_json

__all__ = ["parse_json", "parse_object", "read_text"]


def parse_json(text: str, *, source: str) -> Any:
    """Parse a JSON value. Raises BadParameter, which names `source` and the position of the error."""
    try:
        return load_json(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise typer.BadParameter(f"not JSON: {error.msg} at {where}", param_hint=source) from None
    except RecursionError:
        raise typer.BadParameter("the JSON is nested too deeply", param_hint=source) from None
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=source) from None


def parse_object(text: str, *, source: str) -> dict[str, Any]:
    """Parse a JSON object. Raises BadParameter."""
    value = parse_json(text, source=source)
    if not isinstance(value, dict):
        raise typer.BadParameter('expected a JSON object such as {"text": "hello"}', param_hint=source)
    return value


def read_text(path: str, *, source: str) -> str:
    """Read a UTF-8 file, `-` for standard input. Raises BadParameter when it is not UTF-8, OSError when it cannot be read."""
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"not UTF-8 at byte {error.start}", param_hint=source) from None
