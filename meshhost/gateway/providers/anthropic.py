"""`AnthropicProvider`: a service with Anthropic's Messages API.

Callers of that API are passed on as they are; those of the Responses API and of chat completions are translated
(`translating.py`). The key goes out in the header that this API has for it.
"""

from aiohttp import web
from multidict import CIMultiDict

from meshhost.gateway.http import error_response
from meshhost.gateway.providers.forwarding import ForwardingProvider
from meshhost.llm.caller_forms import FORMS, MESSAGES_CALLER
from meshhost.llm.dialects import MESSAGES

__all__ = ["AnthropicProvider"]

# The version of the API that our translation is written for; a caller of that API may name another.
_VERSION = "2023-06-01"
_PASSED = ("messages", "messages/count_tokens")


class AnthropicProvider(ForwardingProvider):
    """Forwards to a service with the Messages API. See ForwardingProvider."""

    def _authorise(self, headers: CIMultiDict[str], key: str) -> None:
        headers["x-api-key"] = key
        headers.setdefault("anthropic-version", _VERSION)

    async def _answer(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        if request.method == "GET" and path.startswith("models"):
            return await self._forward(request, path, body)
        if request.method == "POST" and path in _PASSED:
            return await self._forward(request, path, body)
        form = FORMS.get(path) if request.method == "POST" else None
        if form is None or form is MESSAGES_CALLER:
            text = f"provider {self.name} has no operation {request.method} {path[:128]}"
            return error_response(404, text, type="invalid_request_error", code="unknown_path")
        return await self._translate(request, form, MESSAGES, body)
