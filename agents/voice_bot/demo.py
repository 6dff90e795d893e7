"""`make demo-voice`: somebody asks an agent a question by voice, and hears the answer.

Shows: a whole voice call, with every part real and in processes of their own: the room server, the agent in `main.py` beside
this file, and a caller. The caller is this program: eSpeak NG speaks its question, in another voice than the agent's. The
agent's silence detector notices the end of the question, Whisper understands it, the model answers, and the answer is spoken
while the model still writes.

Run it:  make demo-voice

You read along while both speak, and the recording is left in voice-demo.wav: the caller on the left, the agent on the right.
With OPENAI_API_KEY or OPENAI_BASE_URL set, that provider answers; otherwise the small local model does.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
import tempfile
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path

from meshhost.api import ApiScope, ParticipantGrant, ParticipantToken, RoomClient, WebSocketClientProtocol
from meshhost.api.helpers import websocket_room_url
from meshhost.voice import Cleared, Line, OutgoingCall, Sound, Speaker, VoiceState, voice_agent
from meshhost.voice.offline import EspeakVoice

ROOM, AGENT, RATE = "demo", "voice-bot", 16_000
QUESTION = "What was the name of the first man on the moon?"
START_SECONDS, ANSWER_SECONDS = 90, 120
HERE = Path(__file__).parent


def say(text: str) -> None:
    print(text, flush=True)


def environment(directory: Path) -> dict[str, str]:
    """Return the environment of all processes, without the user's own settings: the demo must not act on their rooms."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHHOST_", "MESHAGENT_"))}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return kept | {
        "MESHHOST_API_URL": f"http://127.0.0.1:{port}",
        "MESHHOST_CONFIG_DIR": str(directory / "config"),
        "MESHHOST_DATA_DIR": str(directory / "data"),
        "MESHHOST_LOG_LEVEL": "WARNING",
        "MESHHOST_WEBHOOK_SECRET": secrets.token_hex(32),
    }


async def meshhost(*arguments: str, env: dict[str, str]) -> str:
    """Run a meshhost command and return its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshhost.cli.main", *arguments, env=env, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"meshhost {arguments[0]} failed")
    return output.decode()


@contextlib.asynccontextmanager
async def service(env: dict[str, str]) -> AsyncIterator[None]:
    """Run `meshhost service run`: returns when its agent has joined the room, and stops it at the end of the block."""
    program = str(HERE / "main.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshhost.cli.main", "service", "run", program, "--room", ROOM, "--json"),
        env=env,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            async for line in process.stdout:
                step = json.loads(line)
                say(f"  ✓ {step['text']}")
                if step["step"] == "joined":
                    break
            else:
                raise SystemExit("the service ended before its agent joined")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def connect(env: dict[str, str], api_key: str) -> RoomClient:
    token = ParticipantToken(
        name="ann",
        grants=[ParticipantGrant(name="room", scope=ROOM), ParticipantGrant(name="api", scope=ApiScope.full())],
    ).to_jwt(api_key=api_key)
    url = websocket_room_url(room_name=ROOM, base_url=env["MESHHOST_API_URL"])
    return RoomClient(protocol=WebSocketClientProtocol(url=url, token=token))


class Recording:
    """Both sides of a call, each on its own channel, as the caller hears them."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._channels = (bytearray(), bytearray())

    def add(self, channel: int, sound: Sound) -> None:
        """Add what begins now, or behind what is still to be heard."""
        track = self._channels[channel]
        track += bytes(max(0, self._now() - len(track)))
        track += sound.pcm

    def cut(self, channel: int) -> None:
        """Drop what is still to be heard."""
        del self._channels[channel][self._now() :]

    def seconds_left(self, channel: int) -> float:
        """How long until all is heard."""
        return max(0, len(self._channels[channel]) - self._now()) / 2 / RATE

    def save(self, path: Path) -> float:
        """Write a WAV; return its length in seconds."""
        length = max(len(track) for track in self._channels)
        left, right = (bytes(track).ljust(length, b"\0") for track in self._channels)
        stereo = bytearray(2 * length)
        for byte in (0, 1):
            stereo[byte::4] = left[byte::2]
            stereo[byte + 2 :: 4] = right[byte::2]
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(bytes(stereo))
        return length / 2 / RATE

    def _now(self) -> int:
        return int((time.monotonic() - self._began) * RATE) * 2


class Caller:
    """Speaks, listens, and writes down both."""

    def __init__(self, call: OutgoingCall, recording: Recording) -> None:
        self._call = call
        self._recording = recording
        self._voice = EspeakVoice("en-us+m7", words_per_minute=150)
        self._answers = 0
        self._answered = asyncio.Event()
        self._state: VoiceState | None = None
        self._to_say: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(self) -> None:
        async for happened in self._call:
            match happened:
                case Sound():
                    self._recording.add(1, happened)
                case Cleared():
                    self._recording.cut(1)
                case VoiceState():
                    self._show(happened)
                case Line():
                    who = "Ann, as understood" if happened.speaker is Speaker.CALLER else "The agent"
                    say(f"    {who}: {happened.text}")
                    if happened.speaker is Speaker.AGENT:
                        self._answers += 1
                        self._answered.set()

    def _show(self, state: VoiceState) -> None:
        if state is not self._state and state is not VoiceState.LISTENING:
            say(f"  … {state.value}")
        self._state = state

    async def use_the_microphone(self) -> None:
        """Send sound without a break, as a microphone does: what is said, and silence."""
        size = RATE // 50 * 2 * 5  # 100 ms
        began, sent = time.monotonic(), 0
        while True:
            rest = self._to_say.get_nowait() if not self._to_say.empty() else bytes(size)
            for begin in range(0, len(rest), size):
                sound = Sound(rest[begin : begin + size].ljust(size, b"\0"), RATE)
                self._recording.add(0, sound)
                await self._call.send(sound)
                sent += 1
                await asyncio.sleep(max(0.0, began + sent * 0.1 - time.monotonic()))

    async def say(self, text: str) -> None:
        say(f"  Ann says: {text}")
        pieces = [piece.pcm async for piece in self._voice.speak(text, rate=RATE, voice=None, call_id="ann")]
        self._to_say.put_nowait(b"".join(pieces))

    async def answered(self, times: int) -> None:
        """Return when the agent has said so many things, and all was heard."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while self._answers < times:
                self._answered.clear()
                await self._answered.wait()
        await asyncio.sleep(self._recording.seconds_left(1))


async def talk(room: RoomClient, recording: Recording) -> None:
    await room.messaging.enable()
    agent = await voice_agent(room, AGENT)
    async with OutgoingCall(room=room, agent=agent, rate=RATE) as call:
        caller = Caller(call, recording)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(caller.listen()), group.create_task(caller.use_the_microphone())]
            await caller.answered(1)
            await caller.say(QUESTION)
            await caller.answered(2)
            for task in tasks:
                task.cancel()
    if call.end_reason is not None:
        raise SystemExit(f"the agent ended the call: {call.end_reason}")


async def main(output: Path) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="meshhost-demo-voice-") as directory:
        env = environment(Path(directory))
        is_offline = not (env.get("OPENAI_API_KEY") or env.get("OPENAI_BASE_URL"))
        project = json.loads(await meshhost("setup", "--json", env=env))
        say("Room server, service host and agent:")
        async with service(env), connect(env, project["api_key"]) as room:
            model = "the small local model (SmolLM2, 135M; it knows little)" if is_offline else "your provider"
            say(f"A call; the model is {model}:")
            recording = Recording()
            await talk(room, recording)
            seconds = recording.save(output)
            say(f"  ✓ {output}: {seconds:.0f} s, Ann on the left, the agent on the right")
            [thread] = await room.storage.list(path="calls")
            say(f"  ✓ the transcript is a thread of the room: calls/{thread.name}")
    say(f"\nDone in {time.monotonic() - began:.0f} s; nothing is left running.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Somebody asks an agent a question by voice, and hears the answer.")
    parser.add_argument(
        "--output", type=Path, default=Path("voice-demo.wav"), help="the recording (default: %(default)s)"
    )
    try:
        asyncio.run(main(parser.parse_args().output))
    except TimeoutError:
        raise SystemExit("the demo did not finish in time; MESHHOST_LOG_LEVEL=INFO shows more") from None
