"""What Python takes for JSON and other languages do not: NaN and the infinities."""

import json
import math
from typing import Any

from meshhost.errors import InvalidRequestError

__all__ = ["check_finite"]


def check_finite(value: Any, name: str) -> None:
    """Raise InvalidRequestError when a number in this JSON value is not finite; it names the field, from `name` on."""
    try:
        json.dumps(value, allow_nan=False, default=str)
    except ValueError as error:
        if "float" not in str(error):  # a value that holds itself: encoding it raises later
            return
        found = _find(value, name)
        if found is not None:
            raise InvalidRequestError(found, "NaN and Infinity are not JSON") from None


def _find(value: Any, name: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    items: Any = ()
    if isinstance(value, dict):
        items = ((f"{name}.{key}", member) for key, member in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{name}[{number}]", member) for number, member in enumerate(value))
    return next((found for at, member in items if (found := _find(member, at)) is not None), None)
