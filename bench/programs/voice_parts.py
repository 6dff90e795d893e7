"""The parts of a voice benchmark, each a process of its own; prints its address as JSON, and ends with its standard input.

`python -m bench.programs.voice_parts provider | server PROVIDER_URL DIR | host URL TOKEN realtime|cascade CALLS`. The provider
answers as `ScriptedRealtime` does; the stages of the cascade compute nothing. So what is measured is ours.
"""

import asyncio
import json
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.room.client import RoomClient
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.scripted_realtime import ScriptedRealtime
from meshhost.testing.server import running_server
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.voice import (
    Cascade,
    MessageConnector,
    Sound,
    SpeechBegan,
    SpeechEnded,
    Thinker,
    VoiceBot,
)
from meshhost.voice.realtime import Realtime

ANSWER = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
ANSWER_MS = 3_000
SILENCE_MS = 200.0
_LOUD = 1_000


class Loudness:
    """Voice activity by loudness, as the scripted provider has it."""

    def listen(self, call_id: str, rate: int) -> "Loudness":
        """See VoiceActivity."""
        own = Loudness()
        own.at, own.quiet, own.speech = 0.0, 0.0, None
        return own

    at: float
    quiet: float
    speech: list[bytes] | None

    async def feed(self, frame: Sound) -> list[SpeechBegan | SpeechEnded]:
        """See ActivityDetector."""
        self.at += frame.ms
        is_loud = max(map(abs, array("h", frame.pcm)), default=0) > _LOUD
        if self.speech is None:
            if not is_loud:
                return []
            self.speech, self.quiet = [frame.pcm], 0.0
            return [SpeechBegan(self.at)]
        self.speech.append(frame.pcm)
        self.quiet = 0.0 if is_loud else self.quiet + frame.ms
        if self.quiet < SILENCE_MS:
            return []
        speech, self.speech = Sound(b"".join(self.speech), frame.rate), None
        return [SpeechEnded(self.at, speech)]


class Words:
    """Speech to text and text to speech: the same words for all, and a tone."""

    async def prepare(self) -> None:
        """See SpeechToText."""

    async def transcribe(self, speech: Sound, *, call_id: str) -> str:
        """See SpeechToText."""
        return "how late is it"

    async def speak(self, text: str, *, rate: int, voice: str | None, call_id: str) -> AsyncIterator[Sound]:
        """See TextToSpeech."""
        samples = rate * ANSWER_MS // 1000 * len(text.split()) // len(ANSWER.split())
        pcm = array("h", ([4_000] * 20 + [-4_000] * 20) * (samples // 40 + 1))[:samples].tobytes()
        for begin in range(0, len(pcm), rate // 5):  # 100 ms
            yield Sound(pcm[begin : begin + rate // 5], rate)
            await asyncio.sleep(0)


def thinker(kind: str) -> Thinker:
    """One of the two."""
    if kind == "realtime":
        return Realtime()
    words = Words()
    return Cascade(
        llm_adapter=ScriptedLLM([f"{ANSWER}."] * 10_000),
        speech_to_text=words,
        text_to_speech=words,
        voice_activity=Loudness(),
    )


def say(**fields: Any) -> None:
    """Tell the benchmark."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def until_told() -> None:
    """Return when the benchmark ends."""
    await asyncio.to_thread(sys.stdin.read)


async def provider() -> None:
    """The provider of the realtime model."""
    async with ScriptedRealtime(otherwise=(ANSWER, ANSWER_MS), silence_ms=SILENCE_MS) as own:
        say(url=own.base_url)
        await until_told()


async def server(provider_url: str, folder: str) -> None:
    """A room server whose gateway knows the provider."""
    table = ProviderTable({"*": OpenAICompatibleProvider(name="scripted", base_url=provider_url, api_key="k")})
    async with running_server(Path(folder), providers=table) as own:
        say(url=own.server.room_url("room"), api_key=own.api_key, bot=own.token("room", name="bot", role="agent"))
        await until_told()


async def host(url: str, token: str, kind: str, calls: str) -> None:
    """The voice bot."""
    bot = VoiceBot(name="bot", thinker=thinker(kind), connectors=[MessageConnector()], max_calls=int(calls))
    async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token)) as room:
        await bot.start(room=room)
        say(ready=True)
        await until_told()
        await bot.stop()


if __name__ == "__main__":
    parts: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"provider": provider, "server": server, "host": host}
    asyncio.run(parts[sys.argv[1]](*sys.argv[2:]))
