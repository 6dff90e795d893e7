"""Turns the body of a request into messages for a queue: JSON, many lines of JSON, CloudEvents.

Pure: headers and bytes go in, `NewMessage` objects come out, so REST and hooks understand the same. A request may be repeated
because its answer was lost; a key that its sender gave, or the identity of a CloudEvent, becomes the name under which a queue
stores a message once. The n-th message of a request with a key has a name of its own, derived from that key.
"""

import base64
import binascii
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshhost.errors import InvalidRequestError, TooLargeError
from meshhost.protocol.json_values import MOST_PARTS, dump_json, has_few_parts, load_json
from meshhost.queues.reserved import check_sender_id, server_id
from meshhost.stores.messages import HIGHEST_PRIORITY, NewMessage
from meshhost.stores.queues import LONGEST_DELAY, MAX_BATCH
from meshhost.validation import invalid_request

__all__ = [
    "FORM",
    "MOST_MESSAGES",
    "REMEMBER_SECONDS",
    "Incoming",
    "SendOptions",
    "data_in",
    "is_readable",
    "json_in",
    "media_of",
    "messages_in",
    "trace_of",
]

MOST_MESSAGES: Final = MAX_BATCH
# How long a repeated request is known: as long as foreign services repeat one.
REMEMBER_SECONDS: Final = 24 * 3600.0
_MOST_ATTRIBUTES = 50
_LONGEST_KEY = 200
FORM: Final = "application/x-www-form-urlencoded"
_LINES = {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
_REQUIRED = ("specversion", "id", "source", "type")
_TRACE = ("traceparent", "tracestate")
# Says that the message is a text in base64, because the data was not JSON and no text.
_BASE64 = {"content-transfer-encoding": "base64"}


class Incoming(NamedTuple):
    """The messages of a request; `is_many` when it was an array or lines, even of one."""

    messages: Sequence[NewMessage]
    is_many: bool = False


class SendOptions(BaseModel):
    """How the messages of a request are sent, from its query: see `NewMessage`. `at` is in seconds since the epoch."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    delay: float | None = Field(None, ge=0, le=LONGEST_DELAY)
    at: float | None = None
    priority: int = Field(0, ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)
    key: str | None = Field(None, min_length=1, max_length=_LONGEST_KEY)
    ttl: float | None = Field(None, gt=0, le=LONGEST_DELAY)

    @staticmethod
    def parse(query: Mapping[str, str]) -> "SendOptions":
        """Return the options in a query. Raises InvalidRequestError, which names the one that is wrong."""
        try:
            options = SendOptions.model_validate(dict(query))
        except ValidationError as error:
            raise invalid_request(error) from None
        if options.at is not None and options.delay is not None:
            raise InvalidRequestError("at", "expected `delay` or `at`, not both")
        return options

    def applied_to(self, messages: Sequence[NewMessage], now: float) -> Sequence[NewMessage]:
        """Return the messages with these options. Raises InvalidRequestError for a time that is too far away."""
        delay = self.delay or 0.0
        if self.at is not None:
            delay = max(self.at - now, 0.0)
            if delay > LONGEST_DELAY:
                raise InvalidRequestError("at", f"expected a time within {LONGEST_DELAY / 86400:.0f} days")
        return [replace(each, delay=delay, priority=self.priority, key=self.key, ttl=self.ttl) for each in messages]


def messages_in(headers: Mapping[str, str], body: bytes, *, key: str | None = None) -> Incoming:
    """Return the messages in a request, in order. `headers` are looked up as they are: case-insensitive, or in lower case.

    `key` is the sender's name for the request (Idempotency-Key). Raises InvalidRequestError, which names the message that is
    wrong, and TooLargeError for more than MOST_MESSAGES.
    """
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isprintable()):
        raise InvalidRequestError("Idempotency-Key", f"expected 1 to {_LONGEST_KEY} printable characters")
    check_sender_id(key, "Idempotency-Key")
    media, trace = media_of(headers), trace_of(headers)
    if "ce-specversion" in headers and media != "application/cloudevents+json":
        return Incoming([_named(_binary_event(headers, media, body, trace), key)])
    if media == "application/cloudevents+json":
        return Incoming([_named(_event(json_in(body), "body", trace), key)])
    if media == "application/cloudevents-batch+json":
        events = json_in(body)
        if not isinstance(events, list):
            raise InvalidRequestError("body", "expected an array of CloudEvents")
        return _all_named([_event(event, f"messages[{n}]", trace) for n, event in enumerate(_few(events))], key)
    if media in _LINES:
        lines = [line for line in body.split(b"\n") if line.strip()]
        values = [json_in(line, f"messages[{n}]") for n, line in enumerate(_few(lines))]
    elif media in {"", "application/json"} or media.endswith("+json"):
        value = json_in(body)
        if not isinstance(value, list):
            return Incoming([_named(NewMessage(dump_json(value), trace), key)])
        values = [*_few(value)]
    else:
        expected = "application/json, application/x-ndjson or application/cloudevents+json"
        raise InvalidRequestError("Content-Type", f"expected {expected}, not {media[:60]!r}")
    return _all_named([NewMessage(dump_json(value), trace) for value in values], key)


def is_readable(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a body can be read in little time, whatever is in it; blocks a little for a large one."""
    media = media_of(headers)
    if media == FORM and body.count(b"%") > MOST_PARTS:
        return False
    if media in _LINES and body.count(b"\n") > MOST_PARTS:
        return False
    return media.startswith("text/") or has_few_parts(body)


def media_of(headers: Mapping[str, str]) -> str:
    """Return the media type of a body, without parameters and in lower case; "" when the request does not say."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the trace context of a request, for the headers of its messages."""
    return {name: headers[name] for name in _TRACE if name in headers}


def json_in(body: bytes, what: str = "body") -> Any:
    """Return the JSON value in a body. Raises InvalidRequestError with the position of what is wrong."""
    try:
        return load_json(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidRequestError(what, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(what, f"not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise InvalidRequestError(what, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequestError(what, f"not JSON: {error}") from None


def data_in(media: str, body: bytes) -> tuple[Any, Mapping[str, str]]:
    """Return a body of any media type as a JSON value, and the header that says how: JSON, text, else base64.

    Raises InvalidRequestError for JSON and text that are none.
    """
    if not body:
        return None, {}
    if media in {"", "application/json"} or media.endswith("+json"):
        return json_in(body), {}
    if not media.startswith("text/"):
        return base64.b64encode(body).decode(), _BASE64
    try:
        return body.decode(), {}
    except UnicodeDecodeError as error:
        raise InvalidRequestError("body", f"not UTF-8 at byte {error.start}") from None


def _few(values: list[Any]) -> list[Any]:
    if not values:
        raise InvalidRequestError("body", "expected at least one message")
    if len(values) > MOST_MESSAGES:
        raise TooLargeError(f"{len(values)} messages in one request, at most {MOST_MESSAGES} are taken")
    return values


def _all_named(messages: list[NewMessage], key: str | None) -> Incoming:
    if key is not None:
        messages = [_named(message, f"{key}:{n}") for n, message in enumerate(messages)]
    return Incoming(messages, is_many=True)


def _named(message: NewMessage, key: str | None) -> NewMessage:
    return message if key is None else replace(message, sender_id=key, remember_seconds=REMEMBER_SECONDS)


def _event(event: Any, what: str, trace: Mapping[str, str]) -> NewMessage:
    """A CloudEvent in structured mode."""
    if not isinstance(event, dict):
        raise InvalidRequestError(what, "expected a CloudEvent, which is a JSON object")
    attributes = {name: value for name, value in event.items() if name not in {"data", "data_base64"}}
    if "data_base64" not in event:
        return _message_of(attributes, event.get("data"), what, trace)
    try:
        data = base64.b64decode(event["data_base64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InvalidRequestError(f"{what}.data_base64", "expected base64") from None
    return _message_of(attributes, base64.b64encode(data).decode(), what, {**trace, **_BASE64})


def _binary_event(headers: Mapping[str, str], media: str, body: bytes, trace: Mapping[str, str]) -> NewMessage:
    """A CloudEvent in binary mode: its attributes are headers, its data is the body."""
    attributes: dict[str, Any] = {
        name.lower().removeprefix("ce-"): unquote(value)
        for name, value in headers.items()
        if name.lower().startswith("ce-")
    }
    if media:
        attributes["datacontenttype"] = headers["content-type"]
    data, more = data_in(media, body)
    return _message_of(attributes, data, "body", {**trace, **more})


def _message_of(attributes: Mapping[str, Any], data: Any, what: str, trace: Mapping[str, str]) -> NewMessage:
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise InvalidRequestError(f"{what}.{name}", "expected the attribute of a CloudEvent")
    if not str(attributes["specversion"]).startswith("1."):
        raise InvalidRequestError(f"{what}.specversion", "expected a CloudEvent of version 1.0")
    if len(attributes) > _MOST_ATTRIBUTES:
        raise InvalidRequestError(what, f"expected at most {_MOST_ATTRIBUTES} attributes")
    headers = dict(trace)
    for name, value in attributes.items():
        if not (name.isascii() and name.isalnum()) or not isinstance(value, str | int | None):
            raise InvalidRequestError(f"{what}.{name[:40]}", "expected the attribute of a CloudEvent")
        # Workers pass headers on to where a line break begins another header; the specification allows none either.
        if isinstance(value, str) and any(unicodedata.category(character) == "Cc" for character in value):
            raise InvalidRequestError(f"{what}.{name[:40]}", "expected a text without control characters")
        if value is not None:
            headers[f"ce-{name.lower()}"] = str(value).lower() if isinstance(value, bool) else str(value)
    identity = f"{attributes['source']}\n{attributes['id']}"
    digest = hashlib.sha256(identity.encode(errors="replace")).hexdigest()
    return _named(NewMessage(dump_json(data), headers), server_id("cloudevent", digest))
