"""What a room server keeps of a message for those who wait for it: which values may be its result or its progress.

`job.py` checks what a program returned or reported before it is sent, so that the program learns what is wrong while it can be
told. This module is pure.
"""

import json
from typing import Any

from meshhost.protocol.json_values import load_json

__all__ = ["MAX_VALUE_CHARS", "MAX_VALUE_DEPTH", "plain_json", "sized_json"]

# A server keeps no larger value.
MAX_VALUE_CHARS = 64 * 1024
# How deep its lists and objects may be in each other: what reads it on its way has to be able to.
MAX_VALUE_DEPTH = 100
_TOO_DEEP = f"it is nested too deeply: more than {MAX_VALUE_DEPTH} lists and objects in each other"


def plain_json(value: Any) -> Any:
    """Return the value as the JSON value that a server would keep. Raises ValueError, without contents of the value."""
    return sized_json(value)[0]


def sized_json(value: Any, *, most: float = MAX_VALUE_CHARS) -> tuple[Any, int]:
    """Return what `plain_json` returns, and its characters as JSON, of which it may have at most `most`."""
    kind = type(value).__name__
    try:
        text = json.dumps(value, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"{kind} is no JSON value: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        # Python's text has the number, or says "Circular reference detected".
        text = "NaN and Infinity are none" if "float" in str(error) else str(error)
        raise ValueError(f"{kind} is no JSON value: {text}") from None
    if len(text) > most:
        raise ValueError(f"it has {len(text)} characters as JSON, at most {most}: store it as a file")
    # Not `value`: what is not plain JSON in it (tuples, numbers as keys) was converted.
    try:
        plain = load_json(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MAX_VALUE_DEPTH and _is_deeper(plain, MAX_VALUE_DEPTH):
        raise ValueError(_TOO_DEEP)
    return plain, len(text)


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are in each other more than `most` times."""
    level = [value]
    for _ in range(most + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [each for found in level for each in (found.values() if isinstance(found, dict) else found)]
    return True
