"""`OpenAICompletionsAdapter`: a model behind the chat completions API as an LLMAdapter.

For services that a program talks to itself and that offer this API only. Through a room's gateway it is not needed: the gateway
translates for such a provider. Turns, retries, cancellation and the repair of a refused conversation are those of the Responses
adapter (`exchange.py`); only the request and the answer on the wire differ (`meshhost.llm`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI

from meshhost.llm.dialects import CHAT
from meshhost.openai.proxy import get_client, open_client
from meshhost.openai.tools.model_adapter import ModelAdapter, written_with
from meshhost.openai.tools.responses_adapter import DEFAULT_MODEL
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.openai.tools.stream import ANSWER_TIMEOUT
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter
from meshhost.settings import read_settings

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["OpenAICompletionsAdapter", "OpenAICompletionsToolResponseAdapter"]


class OpenAICompletionsToolResponseAdapter(OpenAIResponsesToolResponseAdapter):
    """What tools return, as messages of a conversation. A subclass may return messages with the role `tool` as well."""


class OpenAICompletionsAdapter(ModelAdapter):
    """Continues conversations through `client`, a service at `base_url` (with `api_key`), or the room's gateway.

    `model` defaults to OPENAI_MODEL, then to the Responses adapter's. `completion_options` are further parameters of the
    request, by their names in the chat API, and override ours. The other arguments are those of OpenAIResponsesAdapter.
    """

    def __init__(
        self,
        model: str | None = None,
        parallel_tool_calls: bool | None = None,
        client: AsyncOpenAI | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        completion_options: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        provider: str = "openai",
        max_tool_rounds: int = 50,
        retry: RetryPolicy | None = None,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        super().__init__(
            model=model or read_settings().openai_model or DEFAULT_MODEL,
            provider=provider,
            parallel_tool_calls=parallel_tool_calls,
            reasoning_effort=reasoning_effort,
            max_tool_rounds=max_tool_rounds,
            retry=retry,
            answer_timeout=answer_timeout,
            client=client,
            base_url=base_url,
            dialect=written_with(CHAT, completion_options or {}),
        )
        self._api_key = api_key

    @asynccontextmanager
    async def _client_for(self, room: "RoomClient") -> AsyncIterator[AsyncOpenAI]:
        if self._client is not None:
            yield self._client
            return
        own = self._base_url is not None
        async with open_client(str(self._base_url), self._api_key) if own else get_client(room=room) as client:
            yield client
