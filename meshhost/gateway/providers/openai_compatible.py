"""`OpenAICompatibleProvider`: a service with an OpenAI-compatible API: the Responses API, chat completions, or both.

Which of the two it speaks is a setting, or found by the first request to `responses`: a service that does not know that path is
asked by chat completions instead, and remembered as one that speaks these. A caller of the API that the service does not have
is answered by translation (`translating.py`), so that a program written for the Responses API runs with any provider. All other
paths are passed on as they are.

Invariant: a request reaches the model once. Only an answer that says that the path is unknown is followed by another request.
"""

import logging
import re
from typing import Any, Literal

from aiohttp import ClientResponse, ClientWebSocketResponse, web

from meshhost.gateway.http import error_response, json_object
from meshhost.gateway.provider import Caller
from meshhost.gateway.providers.forwarding import ForwardingProvider
from meshhost.llm.caller_forms import CHAT_CALLER, FORMS, CallerForm
from meshhost.llm.dialects import CHAT

__all__ = ["Api", "OpenAICompatibleProvider"]

logger = logging.getLogger(__name__)

_MAX_ERROR_BYTES = 16 * 1024

Api = Literal["responses", "chat"]

# What services without the path answer instead of 404 or 405.
_NO_SUCH_PATH = re.compile(
    r"(unknown|invalid|unsupported|no such|unrecognized).{0,20}(route|path|url|endpoint)"
    r"|(route|path|url|endpoint).{0,40}(not found|unknown|does not exist|not supported)|not implemented",
    re.IGNORECASE | re.DOTALL,
)
_OF_THE_MODEL = re.compile(r"\bmodels?\b|model_", re.IGNORECASE)


class OpenAICompatibleProvider(ForwardingProvider):
    """Forwards to an OpenAI-compatible service. `api` is what it speaks; None: found out. `options` as in
    ForwardingProvider."""

    def __init__(self, *, name: str, base_url: str, api_key: str, api: Api | None = None, **options: Any) -> None:
        super().__init__(name=name, base_url=base_url, api_key=api_key, **options)
        # The paths that the service is known to have and to lack.
        self._has = {"responses"} if api == "responses" else {CHAT.path} if api == "chat" else set[str]()
        self._lacks = {"responses"} if api == "chat" else set[str]()

    @property
    def api(self) -> Api | None:
        """What the service speaks; None while that is not known."""
        if "responses" in self._lacks:
            return "chat"
        return "responses" if "responses" in self._has else None

    async def dial_realtime(self, model: str, caller: Caller, *, max_event_bytes: int) -> ClientWebSocketResponse:
        """See RealtimeProvider."""
        return await self._dial("realtime", {"model": model}, caller, max_event_bytes=max_event_bytes)

    async def _answer(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        form = FORMS.get(path) if request.method == "POST" else None
        if form is not None:
            return await self._answer_by(request, form, body)
        if "responses" in self._lacks and path.startswith("responses/"):
            text = f"provider {self.name} stores no responses"
            return error_response(404, text, type="invalid_request_error", code="not_found")
        return await self._forward(request, path, body)

    async def _answer_by(self, request: web.Request, form: CallerForm, body: bytes) -> web.StreamResponse:
        """Ask in the caller's API if the service has it, else in the other one."""
        order = (CHAT, None) if form is CHAT_CALLER else (None, CHAT)
        lacking: set[str] = set()
        for dialect in order:
            path = "responses" if dialect is None else dialect.path
            if path in self._lacks:
                continue
            try:
                if path == form.path:
                    answer = await self._forward(request, path, body)
                else:
                    answer = await self._translate(request, form, dialect, body)
            except _NoSuchPathError:
                lacking.add(path)
                continue
            # Nothing is concluded from an address that has neither: it may be wrong, or its service is being started. Nor
            # from one that fails.
            if lacking and answer.status < 500 and answer.status not in (404, 405):
                self._lacks |= lacking
                logger.info("a model provider lacks an API", extra={"provider": self.name, "path": path})
            return answer
        text = f"provider {self.name} has neither responses nor chat/completions; is its base_url right?"
        return error_response(404, text, type="upstream_unavailable", code="unknown_path")

    async def _examine(self, upstream: ClientResponse, path: str) -> bytes | None:
        if upstream.method != "POST" or path not in ("responses", CHAT.path) or path in self._has:
            return None
        if upstream.status == 200:
            self._has.add(path)
        if upstream.status not in (400, 404, 405, 501):
            return None
        body = await upstream.read()
        if _is_path_missing(upstream.status, body):
            raise _NoSuchPathError
        return body


class _NoSuchPathError(Exception):
    """The service does not know the path."""


def _is_path_missing(status: int, body: bytes) -> bool:
    """Whether an error means that the path is unknown, and not the model or something in the request."""
    if status in (405, 501):
        return True
    text = body[:_MAX_ERROR_BYTES].decode(errors="replace")
    error = (json_object(body) or {}).get("error")
    if isinstance(error, dict):
        text = " ".join(str(error.get(name) or "") for name in ("code", "type", "param", "message"))
    if _OF_THE_MODEL.search(text):
        return False
    return status == 404 or _NO_SUCH_PATH.search(text) is not None
