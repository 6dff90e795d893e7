"""`AnthropicMessagesAdapter`: a model behind Anthropic's Messages API as an LLMAdapter.

Turns, retries, cancellation and the repair of a refused conversation are those of the OpenAI adapters
(`meshhost.openai.tools`); only the request and the answer on the wire differ (`meshhost.llm`). Thoughts are kept in the
conversation with their signatures and go back with the next request. An error inside a stream, such as an overload, is retried
like one with a status.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from meshhost.llm.dialects import MESSAGES
from meshhost.openai.proxy import gateway_url, open_client
from meshhost.openai.tools.model_adapter import ModelAdapter, written_with
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.openai.tools.stream import ANSWER_TIMEOUT
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter
from meshhost.settings import read_settings
from meshhost.tools.schema import Schema

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["DEFAULT_MODEL", "AnthropicMessagesAdapter", "AnthropicMessagesToolResponseAdapter"]

DEFAULT_MODEL = "claude-sonnet-4-6"
# The version of the API that our requests are written for.
_VERSION = "2023-06-01"


class AnthropicMessagesToolResponseAdapter(OpenAIResponsesToolResponseAdapter):
    """What tools return, as messages of a conversation."""


class AnthropicMessagesAdapter(ModelAdapter):
    """Continues conversations through `client`, a service at `base_url` (with `api_key`), or the room's gateway.

    `client` is an `anthropic.AsyncAnthropic`. `base_url` ends with the version of the API, as in https://api.anthropic.com/v1.
    `model` defaults to ANTHROPIC_MODEL, then to DEFAULT_MODEL. `max_tokens` bounds one answer; without it the model's usual
    bound is sent. `max_retries` is how often a failed request is repeated; `retry` says more. `message_options` are further
    parameters of the request, by their names in the Messages API, and override ours. `reasoning_effort` lets the model think
    first: `low`, `medium`, `high`. The other arguments are those of OpenAIResponsesAdapter.
    """

    def __init__(
        self,
        model: str | None = None,
        max_tokens: int | None = None,
        max_retries: int | None = None,
        client: Any | None = None,
        message_options: dict[str, Any] | None = None,
        provider: str = "anthropic",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        parallel_tool_calls: bool | None = None,
        reasoning_effort: str | None = None,
        max_tool_rounds: int = 50,
        retry: RetryPolicy | None = None,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        if retry is None and max_retries is not None:
            retry = RetryPolicy(tries=max_retries + 1)
        super().__init__(
            model=model or read_settings().anthropic_model or DEFAULT_MODEL,
            provider=provider,
            parallel_tool_calls=parallel_tool_calls,
            reasoning_effort=reasoning_effort,
            max_tool_rounds=max_tool_rounds,
            retry=retry,
            answer_timeout=answer_timeout,
            client=client,
            base_url=base_url,
            dialect=written_with(MESSAGES, message_options or {}),
        )
        self._max_tokens = max_tokens
        self._api_key = api_key

    @asynccontextmanager
    async def _client_for(self, room: "RoomClient") -> AsyncIterator[Any]:
        if self._client is not None:
            yield self._client
            return
        if self._base_url is None:
            url, key, headers = gateway_url(room.room_url), room.protocol.token, {}
        else:
            url, key = self._base_url, self._api_key or "none"
            headers = {"x-api-key": key}
        async with open_client(url, key, {"anthropic-version": _VERSION, **headers}) as client:
            yield client

    def _options(self, model: str, bundle: ToolBundle, output_schema: Schema | None) -> dict[str, Any]:
        options = super()._options(model, bundle, output_schema)
        return options if self._max_tokens is None else {**options, "max_output_tokens": self._max_tokens}
