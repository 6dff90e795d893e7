"""JSON as other languages read it: NaN and Infinity are refused, which Python's own module writes and reads.

What leaves this process for another participant, or is stored for one, is written by `dump_json`; what people and models
wrote is read by `load_json`, headers from the wire by `load_header`. A number that is too large for a float, such as 1e999,
becomes Infinity: `load_json` refuses it, and on the wire, where a check of each number would cost too much, `dump_json` does
when the value is passed on or stored. `check_finite` names the field of such a number, for a message that a caller gave.
`has_few_parts` says whether reading a text takes no more time and memory than its length suggests.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from meshhost.errors import InvalidRequestError

__all__ = ["MOST_PARTS", "check_finite", "dump_json", "has_few_parts", "load_header", "load_json", "load_stored_json"]


MOST_PARTS = 400_000
"""A JSON text of more parts takes many times its length in memory, and the interpreter for a noticeable time."""

_REST_OF_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)


def has_few_parts(data: bytes, *, most: int = MOST_PARTS) -> bool:
    """Whether a JSON text has at most so many parts: texts, and the signs that begin or divide lists and objects.

    Reading ten million empty lists, 30 MB, takes seconds and a gigabyte; a text of 30 MB takes 30 MB. Blocks for a time that
    depends on `most`, and on the length only as far as searching for a byte does.
    """
    parts, at = 0, 0
    while at < len(data):
        quote = data.find(b'"', at)
        end = len(data) if quote < 0 else quote
        parts += 1 + sum(data.count(sign, at, end) for sign in b"[{,:")
        if parts > most:
            return False
        rest = None if quote < 0 else _REST_OF_TEXT.match(data, quote + 1)
        if rest is None:  # the end, or a text that does not end: then it is no JSON
            break
        at = rest.end()
    return True


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


def _fast(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """The encoder without what `JSONEncoder.encode` does for each call anew: half of the time of a small value.

    It keeps no record of what it is in, so a value that holds itself ends in a RecursionError instead of a ValueError.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode  # not CPython
    text_of: Any = json.encoder.encode_basestring_ascii
    encode = make(None, encoder.default, text_of, None, ": ", ", ", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode, _encode_anything = _fast(_ENCODER), _fast(_ENCODER_OF_ANYTHING)


def dump_json(value: Any, *, other_as_text: bool = False) -> str:
    """Return the value as JSON; with `other_as_text`, objects that JSON does not know become texts.

    Raises InvalidRequestError for NaN, Infinity and circles, TypeError for keys that are not texts, RecursionError for a value
    that is nested too deeply.
    """
    try:
        try:
            return (_encode_anything if other_as_text else _encode)(value)
        except RecursionError:  # this one tells a value that holds itself from one that is nested too deeply
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


def check_finite(value: Any, name: str) -> str:
    """Return this JSON value as text. Raises InvalidRequestError when a number is not finite; it names the field, from `name`
    on.

    The text is empty for a value that holds itself.
    """
    try:
        return _encode_anything(value)
    except RecursionError:  # a value that holds itself: encoding it raises later
        return ""
    except ValueError:
        found = _find(value, name)
        if found is not None:
            raise InvalidRequestError(found, "NaN and Infinity are not JSON") from None
        return ""


def _find(value: Any, name: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    items: Any = ()
    if isinstance(value, dict):
        items = ((f"{name}.{key}", member) for key, member in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{name}[{number}]", member) for number, member in enumerate(value))
    return next((found for at, member in items if (found := _find(member, at)) is not None), None)
