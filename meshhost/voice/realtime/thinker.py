"""`Realtime`: a thinker that hands the sound of a voice call to one model, which hears and speaks itself.

By OpenAI's Realtime API, through the gateway of the agent's room: the provider's key stays with the room server, which counts
what is used. A program that has a key of its own may ask a provider directly.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import ClientSession

from meshhost.clock import Clock, SystemClock
from meshhost.errors import SettingsError
from meshhost.settings import read_settings
from meshhost.voice.realtime.call import RealtimeCall
from meshhost.voice.realtime.options import Endpoint, RealtimeOptions
from meshhost.voice.thinker import Conversation

__all__ = ["Realtime"]

_OPENAI = "https://api.openai.com/v1"


class Realtime:
    """Holds voice calls with a realtime model. One object serves many calls at once.

    `model` and `voice` are names of the provider. `direct` asks the provider at `base_url`, or OPENAI_BASE_URL, or OpenAI, with
    `api_key` or OPENAI_API_KEY, instead of the gateway of the room. `options` has everything else, among it the times; `model`
    and `voice` go before it. Raises SettingsError for a direct provider without a key.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        voice: str | None = None,
        direct: bool = False,
        base_url: str | None = None,
        api_key: str | None = None,
        options: RealtimeOptions | None = None,
        more: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        given: dict[str, Any] = {"model": model, "voice": voice, "more": more}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self.options = replace(options or RealtimeOptions(), **changes)
        self._endpoint = _direct(base_url, api_key) if direct or base_url is not None else Endpoint()
        self._clock = clock or SystemClock()

    def __repr__(self) -> str:
        return f"<Realtime {self.options.model!r}>"

    async def run(self, conversation: Conversation) -> None:
        """Hold one voice call until its carrier's frames end. Raises LLMError when the model cannot be asked any more."""
        async with ClientSession() as http:
            await RealtimeCall(conversation, self.options, self._endpoint, http, self._clock).run()


def _direct(base_url: str | None, api_key: str | None) -> Endpoint:
    settings = read_settings()
    key = api_key or (settings.openai_api_key.get_secret_value() if settings.openai_api_key else None)
    if key is None:
        raise SettingsError("a direct realtime model needs a key: pass api_key, or set OPENAI_API_KEY")
    return Endpoint(base_url or settings.openai_base_url or _OPENAI, key)
