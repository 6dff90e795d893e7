"""What a caller may ask of the LLM gateway: operations by method and path, and stored responses by tenant.

Every request that is forwarded is sent with the operator's key, so an operation that is not listed here is refused: the same
key also reads the operator's files, fine-tunes models and manages the account. `routes.py` asks `check_operation` before it
reads a body. An operator adds operations with `ProviderTable(extra_operations=…)`.

A stored response belongs to the operator's account, not to a tenant. `StoredResponses` remembers which tenant's request made
which response, from the bytes of the answer, and `check_references` refuses ids of anything else in that account. What is
remembered is bounded and ends with the process; an id that was forgotten is refused, never forwarded. All in the event loop.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.gateway.http import json_object
from meshhost.gateway.provider import Caller
from meshhost.llm.sse import DataLines

__all__ = [
    "AUDIO",
    "OperationError",
    "ResponseIdReader",
    "StoredResponses",
    "check_operation",
    "check_references",
    "read_body",
]

_ID = r"[A-Za-z0-9_-]{1,256}"
_OPERATIONS: Mapping[str, frozenset[str]] = {
    "models": frozenset({"GET"}),
    r"models/[A-Za-z0-9_~:@./-]{1,256}": frozenset({"GET"}),
    "realtime": frozenset({"GET"}),
    "responses": frozenset({"POST"}),
    rf"responses/{_ID}": frozenset({"GET", "DELETE"}),
    rf"responses/{_ID}/cancel": frozenset({"POST"}),
    rf"responses/{_ID}/input_items": frozenset({"GET"}),
    "chat/completions": frozenset({"POST"}),
    "completions": frozenset({"POST"}),
    "embeddings": frozenset({"POST"}),
    "messages": frozenset({"POST"}),
    "messages/count_tokens": frozenset({"POST"}),
}
AUDIO = frozenset({"audio/speech", "audio/transcriptions", "audio/translations"})
"""The operations of the audio API, which a provider may allow; all are POST."""

_ROUTES = [(re.compile(pattern), methods) for pattern, methods in _OPERATIONS.items()]
_STORED = re.compile(rf"responses/({_ID})(?:/(?:cancel|input_items))?")
# Ids of files, vector stores, containers and skills in the operator's account, as tools and input items name them.
_FOREIGN = frozenset({"container", "container_id", "file_id", "file_ids", "skill_id", "vector_store_ids"})
_NAMES_IN_BYTES = (*(name.encode() for name in sorted(_FOREIGN)), b"\\u00")
_OWN_TEXT = frozenset({"input_schema", "metadata", "parameters", "schema"})
_MAX_DOCUMENT = 1024 * 1024


class OperationError(InvalidRequestError):
    """An operation that the gateway does not forward. `allowed` are the methods of the path; empty for an unknown path."""

    def __init__(self, method: str, path: str, allowed: frozenset[str]) -> None:
        super().__init__("path", f"the gateway does not forward {method[:16]} {path[:128]}")
        self.allowed = allowed


def check_operation(method: str, path: str, extra: frozenset[str] = frozenset()) -> None:
    """Raises OperationError for an operation that is not allowed; `extra` are further paths that take POST."""
    allowed = next((methods for pattern, methods in _ROUTES if pattern.fullmatch(path)), frozenset[str]())
    if not allowed and path in extra:
        allowed = frozenset({"POST"})
    if method not in allowed:
        raise OperationError(method, path, allowed)


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises InvalidRequestError for another body, and for one that names a member twice.

    Of a name that is given twice, this parser takes the last value and the provider's may take the first.
    """
    try:
        found = json.loads(body, object_pairs_hook=_unique)
    except _TwiceError as error:
        raise InvalidRequestError(str(error), "the name is given twice") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestError("body", "expected a JSON object")
    return found


def check_references(body: Mapping[str, Any], raw: bytes) -> None:
    """Raises InvalidRequestError when a request names stored objects of the operator's account.

    `previous_response_id` is left to `StoredResponses`. `raw` are the bytes of the body: looking at them first spares long
    conversations a walk. A name may be written with escapes, so bytes with an escaped ASCII character are walked too.
    """
    if body.get("conversation") is not None:
        raise InvalidRequestError("conversation", "the gateway has no stored conversations; send the whole input")
    items = body.get("input")
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and (item.get("type") == "item_reference" or not item.keys() & {"type", "role"}):
            raise InvalidRequestError("input", "the gateway has no stored items; send the items themselves")
    if any(name in raw for name in _NAMES_IN_BYTES):
        for name, value in _members(body):
            if value and isinstance(value, str | list) and name in _FOREIGN:
                raise InvalidRequestError(name, "the gateway has no stored files; send the content itself")


class StoredResponses:
    """Which tenant made which stored response, and with which model. The oldest of a tenant are forgotten first."""

    def __init__(self, *, max_per_tenant: int = 10_000, max_tenants: int = 1_000) -> None:
        self._max_per_tenant = max_per_tenant
        self._max_tenants = max_tenants
        self._tenants: OrderedDict[str, OrderedDict[str, str]] = OrderedDict()

    def remember(self, caller: Caller, response_id: str, model: str) -> None:
        """The caller's request made this response."""
        mine = self._tenants.setdefault(caller.tenant, OrderedDict())
        self._tenants.move_to_end(caller.tenant)
        mine[response_id] = model
        mine.move_to_end(response_id)
        if len(mine) > self._max_per_tenant:
            mine.popitem(last=False)
        if len(self._tenants) > self._max_tenants:
            self._tenants.popitem(last=False)

    def model_of(self, caller: Caller, path: str) -> str | None:
        """The model of the stored response that `path` names; None for a path that names none. Raises NotFoundError."""
        match = _STORED.fullmatch(path)
        return None if match is None else self._find(caller, match[1])

    def check_previous(self, caller: Caller, body: Mapping[str, Any]) -> None:
        """Raises NotFoundError when the request continues a response that is not known to be of the caller's tenant."""
        if (previous := body.get("previous_response_id")) is not None:
            self._find(caller, previous if isinstance(previous, str) else "")

    def _find(self, caller: Caller, response_id: str) -> str:
        mine = self._tenants.get(caller.tenant)
        model = None if mine is None else mine.get(response_id)
        if model is None:
            raise NotFoundError(f"no stored response {response_id[:128]!r} of this tenant")
        return model


class ResponseIdReader:
    """Finds the id of the response in an answer that passes by in pieces, SSE or one JSON document."""

    def __init__(self) -> None:
        self.response_id: str | None = None
        self._lines = DataLines(max_line=_MAX_DOCUMENT)
        self._document = bytearray()
        self._is_document: bool | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the answer."""
        if self.response_id is not None:
            return
        if self._is_document is None and (start := data.lstrip()):
            self._is_document = start.startswith(b"{")
        if self._is_document:
            if len(self._document) <= _MAX_DOCUMENT:
                self._document += data
            return
        for value in self._lines.feed(data):
            response = (json_object(value) or {}).get("response")
            if isinstance(response, dict) and isinstance(response.get("id"), str):
                self.response_id = response["id"]
                return

    def end(self) -> str | None:
        """The id, or None when the answer named none."""
        if self.response_id is None and 0 < len(self._document) <= _MAX_DOCUMENT:
            found = (json_object(bytes(self._document)) or {}).get("id")
            self.response_id = found if isinstance(found, str) else None
        return self.response_id


class _TwiceError(Exception):
    """A name is given twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise _TwiceError(next(name for name, _ in pairs if name in seen or seen.add(name))[:64])  # type: ignore[func-returns-value]
    return found


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """All members of all objects, but for texts of the caller's own: schemas and metadata."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield from current.items()
            waiting.extend(member for name, member in current.items() if name not in _OWN_TEXT)
        elif isinstance(current, list):
            waiting.extend(current)
