"""From pydantic's report of everything that is wrong to the one sentence that a caller gets.

pydantic collects all problems of a body; an answer on the wire names one field and says what was expected there. The first
problem is taken, without the input (it may hold secrets or payloads). Code that answers with another error class than
InvalidRequestError (HTTP status, CLI text) uses `first_problem` and words the rest itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshhost.errors import InvalidRequestError

if TYPE_CHECKING:  # the error is passed in: importing pydantic here would slow down programs that never validate
    from pydantic import ValidationError

__all__ = ["first_problem", "invalid_request"]


# Instead of pydantic's own words: "Extra inputs are not permitted" tells nobody that a name is misspelt, and "a valid
# dictionary or instance of _Webhooks" is about our code.
_OBJECT = "Input should be an object (in TOML a table)"
_WORDS = {
    "extra_forbidden": "not a name that is known here",
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dataclass_type": _OBJECT,
}


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the first problem: the field as a dotted path ("" for the whole body) and pydantic's message."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return ".".join(map(str, first["loc"])), _WORDS.get(first["type"], first["msg"])


def invalid_request(error: ValidationError, *, prefix: str = "") -> InvalidRequestError:
    """Return the error to raise for a body that failed validation; `prefix` is the path of that body, such as `data`."""
    field, message = first_problem(error)
    return InvalidRequestError(".".join(part for part in (prefix, field) if part), message)
