"""Retries of model requests: which failures are temporary, how long to wait, and what to say about the others.

`explain` translates the exceptions of the `openai` package, and of the packages of other providers that are generated as it is,
into a `Failure`, the only place that knows them; `with_retries` repeats an attempt while its failures are temporary, with waits
by `RetryPolicy`. A provider's own message may quote the conversation or the key, so the texts here contain only the status, the
error code and the name of the parameter; the message is only searched for words that mean a temporary failure, where a provider
names no code.
"""

import email.utils
import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from meshhost.backoff import Backoff
from meshhost.clock import Clock, SystemClock
from meshhost.errors import LLMError

__all__ = ["Failure", "RetryPolicy", "explain", "explain_error", "with_retries"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Errors inside a stream, or in a body with status 200: the HTTP status does not tell what kind they are. Providers name them
# by a code, a type, an HTTP status as a number or a text, or only in a sentence.
_TEMPORARY = re.compile(
    r"overload|rate.?limit|too.?many.?requests|server.?error|internal.?error|unavailable|time.?d?.?out|exhausted"
    r"|deadline.?exceeded|slow.?down|try again|capacity|bad.?gateway",
    re.IGNORECASE,
)
# An account without credit, where waiting does not help, although it comes with the words of a rate limit.
_PERMANENT = re.compile(
    r"insufficient.?quota|billing|invalid|context.?length|not.?found|unauthori[sz]ed", re.IGNORECASE
)
_REFUSED = re.compile(r"invalid|context.?length", re.IGNORECASE)
_MAX_CODE = 64
_TEMPORARY_STATUSES = frozenset({408, 409, 425, 429})
_UNSENDABLE = "the request cannot be sent: is there a line end or another control character in the key or the address?"
_ADVICE = {
    400: "the model gateway did not understand the request",
    401: "the model gateway refused the key: check the room token, or OPENAI_API_KEY where a key is used",
    403: "the key may not use this model: check the grants of the token or the rights of the key",
    404: "the model or the gateway was not found: check OPENAI_MODEL and the address",
    413: "the conversation is too large for the model gateway: shorten it",
    429: "the model is rate limited: try later or raise the limit",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request. `retry_after` is the wait that the server asked for, in seconds."""

    text: str
    status: int | None = None
    is_temporary: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `tries` requests; waits double from `base` seconds up to `cap`, with jitter of up to half."""

    tries: int = 6
    base: float = 0.5
    cap: float = 60.0
    clock: Clock = field(default_factory=SystemClock)
    # Jitter: keeps many agents from retrying at the same moment. No secret depends on it.
    random: Callable[[], float] = random.random

    def delay(self, tried: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after so many tries (1, 2, …); `retry_after` overrides our own wait, up to the cap."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), self.cap)
        return Backoff(self.base, self.cap, jitter=0.5).delay(tried, self.random)


async def with_retries(
    attempt: Callable[[], Awaitable[T | Failure]], policy: RetryPolicy, on_retry: Callable[[int, Failure], None]
) -> T:
    """Repeat `attempt` until it returns something other than a Failure, and return that.

    `on_retry` is called before each further try, with the number of tries so far. Raises LLMError for a failure that is not
    temporary, or when the tries are used up.
    """
    tried = 0
    while True:
        outcome = await attempt()
        if not isinstance(outcome, Failure):
            return outcome
        tried += 1
        if not outcome.is_temporary or tried >= policy.tries:
            raise LLMError(_final_text(outcome, tried), status=outcome.status)
        delay = policy.delay(tried, outcome.retry_after)
        logger.warning("the model request failed and is tried again", extra=_fields(outcome, tried, delay))
        on_retry(tried, outcome)
        await policy.clock.sleep(delay)


def _final_text(failure: Failure, tried: int) -> str:
    return f"{failure.text} ({tried} tries)" if tried > 1 else failure.text


def _fields(failure: Failure, tried: int, delay: float) -> dict[str, object]:
    return {"status": failure.status, "reason": failure.text, "tried": tried, "delay": delay}


def explain(error: Exception, now: float) -> Failure | None:
    """Return the failure that an exception means, or None when it is not one of a model request. `now`: the wall clock."""
    names = {base.__name__ for base in type(error).__mro__}
    # By their names: the client of another provider's library (Anthropic's) raises its own errors of the same kinds.
    if "APIError" in names:
        return _explain_api_error(error, names, now)
    match error:
        # A stream that ends before its last event, inside an event, or inside a character.
        case EOFError() | json.JSONDecodeError() | UnicodeDecodeError():
            return Failure("the model's answer was cut off", is_temporary=True)
        case ValueError():  # such as NaN: sending it again would fail again
            return Failure("the request cannot be sent: a value in the conversation is not JSON", status=400)
        case _ if _is_transport_error(error):
            return Failure("the connection to the model gateway broke", is_temporary=True)
        case _:
            return None


def _explain_api_error(error: Any, names: set[str], now: float) -> Failure:
    if "APIStatusError" in names:
        return _explain_status(error, now)
    if "APITimeoutError" in names:
        return Failure("the model gateway did not answer in time", is_temporary=True)
    if "APIConnectionError" in names:
        if _is_unsendable(error.__cause__):
            return Failure(_UNSENDABLE)
        return Failure("the model gateway could not be reached, or hung up: check its address", is_temporary=True)
    return explain_error(error.body)


def explain_error(error: object, default: str = "the model failed") -> Failure:
    """Return the failure that an error object inside an answer means: a dict with a code, a type or a message, or a text."""
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    code, kind, message = (fields.get(name) for name in ("code", "type", "message"))
    names = [str(each) for each in (code, kind) if each not in (None, "", "error")]
    status = next((int(name) for name in names if name.isascii() and name.isdecimal() and len(name) == 3), None)
    if status is not None:
        is_temporary = status >= 500 or status in _TEMPORARY_STATUSES
    elif any(_PERMANENT.search(name) for name in names):
        is_temporary = False
        # Such an error lies in the conversation, as one that was refused with this status does.
        status = 400 if any(_REFUSED.search(name) for name in names) else None
    else:
        # A message is read only when nothing else says what happened.
        is_temporary = any(map(_TEMPORARY.search, names or [str(message or "")]))
    shown = re.sub(r"[^\w.:-]", "_", names[0])[:_MAX_CODE] if names else ""
    return Failure(f"{default}: {shown}" if shown else default, status=status, is_temporary=is_temporary)


def _explain_status(error: Any, now: float) -> Failure:
    status = error.status_code
    code, param = _fact(error, "code") or _fact(error, "type"), _fact(error, "param")
    if (
        status < 400
    ):  # an error in the middle of a stream, which Anthropic's library raises with the status of its beginning
        return explain_error(_body_of(error))
    text = _ADVICE.get(status, "the model gateway failed" if status >= 500 else "the model gateway refused the request")
    # The server's own message may quote the conversation or the key; code and parameter name do not.
    facts = [f"status {status}", *(str(fact) for fact in (code, param) if fact)]
    return Failure(
        f"{text} ({', '.join(facts)})",
        status=status,
        # insufficient_quota: an account without credit, where waiting does not help.
        is_temporary=status >= 500
        or status in _TEMPORARY_STATUSES - {429}
        or (status == 429 and code != "insufficient_quota"),
        retry_after=_retry_after(error.response.headers, now),
    )


def _fact(error: Any, name: str) -> Any:
    """A member of the error's body; Anthropic's library does not make them attributes."""
    return getattr(error, name, None) or _body_of(error).get(name)


def _body_of(error: Any) -> Mapping[str, Any]:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        value = headers.get("retry-after", "")
        return float(value) if value[:1].isdigit() else email.utils.parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, IndexError):
        return None


def _is_unsendable(cause: BaseException | None) -> bool:
    # The HTTP library refuses a header or an address; named by the class, since which library it is depends on the version.
    kinds = {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL", "ValueError"}
    return cause is not None and any(base.__name__ in kinds for base in type(cause).__mro__)


def _is_transport_error(error: Exception) -> bool:
    # openai 2 passes on errors of its HTTP library in the middle of a stream; which library that is depends on the version.
    return any(base.__name__ == "TransportError" for base in type(error).__mro__)
