"""JSON as other languages read it: NaN and Infinity are refused, which Python's own module writes and reads.

What leaves this process for another participant, or is stored for one, is written by `dump_json`; what people and models
wrote is read by `load_json`, headers from the wire by `load_header`. A number that is too large for a float, such as 1e999,
becomes Infinity: `load_json` refuses it, and on the wire, where a check of each number would cost too much, `dump_json` does
when the value is passed on or stored.
"""

import json
import math
from typing import Any, NoReturn

from meshhost.errors import InvalidRequestError

__all__ = ["dump_json", "load_header", "load_json", "load_stored_json"]


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


# Made once: json.dumps and json.loads make a new one for each call that differs from their defaults.
_ENCODER = json.JSONEncoder(allow_nan=False)
_ENCODER_OF_ANYTHING = json.JSONEncoder(allow_nan=False, default=str)
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_HEADER_DECODER = json.JSONDecoder(parse_constant=_refuse)
_STORED_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def dump_json(value: Any, *, other_as_text: bool = False) -> str:
    """Return the value as JSON; with `other_as_text`, objects that JSON does not know become texts.

    Raises InvalidRequestError for NaN, Infinity and circles, TypeError for keys that are not texts.
    """
    try:
        return (_ENCODER_OF_ANYTHING if other_as_text else _ENCODER).encode(value)
    except ValueError as error:
        # Python's text contains the number, and errors contain no values.
        text = "NaN and Infinity are not JSON values" if "float" in str(error) else str(error)
        raise InvalidRequestError("", text) from None


def load_json(text: str) -> Any:
    """Return the value in a JSON text. Raises ValueError, and RecursionError when it is nested too deeply."""
    return _DECODER.decode(text)


def load_header(data: bytes) -> Any:
    """Return the value in the JSON of a message. Raises ValueError, RecursionError."""
    return _HEADER_DECODER.decode(data.decode("utf-8-sig", "surrogatepass"))


def load_stored_json(text: str) -> Any:
    """Return the value in a text that an older version may have stored: NaN and Infinity are read as null."""
    return _STORED_DECODER.decode(text)
