"""A conversation with a chat bot in the terminal, for `meshhost chat`.

A message is added to the thread, which is a document of the room, and announced to the bot by a `chat` message. The bot writes
its answer into the thread, from where it is printed as it grows. The bot says by a `thinking` message that its answer is
complete; bots of other makers do not, so their answer counts as complete when it has not changed for a while (`ChatTimes`).

Concurrency: one task per answer prints changes while another waits for its end; the printing one is cancelled then. Lines of
the input are read in a daemon thread, so that Ctrl-C works while that blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshhost.agents.chat.log import ANSWER, ANSWERING, ERROR, ThreadLog, clean_text, new_thread, text_of
from meshhost.cli.connect import PARTICIPANT_NAME
from meshhost.cli.output import note, print_json
from meshhost.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, RequestTimeoutError, RoomError
from meshhost.tasks import Stopped, first_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from meshhost.documents.document import Element, MeshDocument
    from meshhost.room.client import RoomClient
    from meshhost.room.participants import RemoteParticipant
    from meshhost.room.services.messaging import RoomMessage

__all__ = ["ChatTimes", "ask_once", "new_path", "talk"]

# Characters that a terminal may obey; tabs and line ends are kept.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class ChatTimes:
    """How long a conversation waits, in seconds.

    `sign`: until the bot reacts in any way. `quiet`: an answer of a bot that does not say when it is complete is complete when
    it has not changed for this long. `late`: how long such an answer is waited for at most, once the bot stopped thinking.
    """

    sign: float = 60.0
    quiet: float = 0.5
    late: float = 5.0


_TIMES = ChatTimes()


def new_path() -> str:
    """Return a path for a new thread."""
    return f"chats/{uuid.uuid4().hex[:12]}.thread"


async def ask_once(
    room: RoomClient, *, agent: str, path: str, text: str, quiet: bool, times: ChatTimes = _TIMES
) -> dict[str, Any]:
    """Send one message, print the answer unless `quiet`, and return it. Raises RoomError when there is no answer."""
    async with _conversation(room, agent, path, times) as conversation:
        answer = await conversation.say(text, show=not quiet)
    return {"thread": path, "agent": agent, "text": answer}


async def talk(room: RoomClient, *, agent: str, path: str, as_json: bool, times: ChatTimes = _TIMES) -> None:
    """Send each line of the input as a message until it ends. An error of the agent is printed and ends nothing."""
    async with _conversation(room, agent, path, times) as conversation:
        note(f"thread {path}; end with Ctrl-D")
        async for line in _lines("" if as_json else "> "):
            if not line.strip():
                continue
            with _interrupts(conversation):
                try:
                    answer = await conversation.say(line, show=not as_json)
                except InvalidRequestError as error:
                    note(str(error))
                    continue
            if as_json:
                print_json({"thread": path, "agent": agent, "text": answer})


class _Conversation:
    """One thread, and the agent that answers in it."""

    def __init__(
        self, room: RoomClient, agent: RemoteParticipant, path: str, document: MeshDocument, times: ChatTimes
    ) -> None:
        self._room = room
        self._agent = agent
        self._name = agent.get_attribute("name")
        self._path = path
        self._times = times
        self._document = document
        self._log = ThreadLog(document)
        self._before: set[str | None] = set()  # ids of messages from before this answer
        self._changed = asyncio.Event()
        self._is_over = asyncio.Event()
        self._has_sign = asyncio.Event()
        self._refusal: str | None = None
        self._is_gone = False
        self._was_disconnected = False

    async def say(self, text: str, *, show: bool) -> str:
        """Send a message and return the answer; with `show`, print it as it grows.

        Raises InvalidRequestError with the error that the agent reports, NotFoundError when it leaves the room.
        """
        text = clean_text(text)
        self._refusal, self._was_disconnected = None, False
        self._is_over.clear()
        self._has_sign.clear()
        said = self._log.add(text, author=_own_name(self._room))
        self._before = {message.id for message in self._log.messages()}
        await self._room.sync.flush(self._path)
        message = {"path": self._path, "text": text, "id": said.get_attribute("id")}
        await self._room.messaging.send_message(to=self._agent, type="chat", message=message)
        printer = _Printer(enabled=show)
        await first_of(self._print(printer), self._wait_over())
        messages = self._answer()
        printer.show("\n\n".join(map(text_of, messages)))
        printer.end()
        return self._checked(messages)

    def cancel(self) -> None:
        """Ask the agent to stop its answer."""
        self._room.messaging.send_message_nowait(to=self._agent, type="cancel", message={"path": self._path})

    def on_message(self, message: RoomMessage) -> None:
        if message.from_participant_id != self._agent.id or message.message.get("path") != self._path:
            return
        self._has_sign.set()
        match message.type:
            case "chat" if message.message.get("error"):
                self._refusal = str(message.message.get("text"))
                self._is_over.set()
            case "thinking" if not message.message.get("thinking"):
                self._is_over.set()
            case _:
                pass

    def on_removed(self, participant: RemoteParticipant) -> None:
        if participant.id == self._agent.id:
            self._is_gone = True
            self._has_sign.set()
            self._is_over.set()

    def on_change(self, *_: Any) -> None:
        self._changed.set()
        # The message that the answer is complete may have been sent while we were disconnected: then the thread shows it.
        if self._was_disconnected and self._looks_over():
            self._has_sign.set()
            self._is_over.set()

    def on_reconnected(self) -> None:
        self._was_disconnected = True
        self.on_change()

    def _looks_over(self) -> bool:
        refs = [str(message.get_attribute("author_ref")) for message in self._answer()]
        return any(ref in (ANSWER, ERROR) for ref in refs) and not any(ref.startswith(ANSWERING) for ref in refs)

    async def _print(self, printer: _Printer) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            printer.show("\n\n".join(map(text_of, self._answer())))

    async def _wait_over(self) -> None:
        if isinstance(await first_of(self._over(), self._room.wait_closed()), Stopped):
            raise RoomError("the connection to the room ended before the answer came")
        # With bots of other makers, the end of the answer may still be on its way when the message about its end arrives.
        is_ours = all(message.get_attribute("author_ref") for message in self._answer())
        if self._refusal is None and not self._is_gone and not (self._answer() and is_ours):
            await self._wait_quiet()

    async def _over(self) -> None:
        try:
            async with asyncio.timeout(self._times.sign):
                await self._has_sign.wait()
        except TimeoutError:
            raise RequestTimeoutError(f"{self._name} does not answer: is it a chat bot?") from None
        await self._is_over.wait()

    async def _wait_quiet(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._times.late
        seen = None
        while loop.time() < deadline:
            texts = [text_of(message) for message in self._answer()]
            if any(texts) and texts == seen:
                return
            seen = texts
            await asyncio.sleep(self._times.quiet)

    def _answer(self) -> list[Element]:
        return [
            message
            for message in self._log.messages()
            if message.id not in self._before and message.get_attribute("author_name") == self._name
        ]

    def _checked(self, answer: list[Element]) -> str:
        if self._refusal is not None:
            raise InvalidRequestError("", f"{self._name}: {self._refusal}")
        if self._is_gone:
            raise NotFoundError(f"{self._name} left the room before its answer was complete")
        for message in answer:
            if message.get_attribute("author_ref") == ERROR:
                raise InvalidRequestError("", f"{self._name}: {text_of(message)}")
        said = [each for each in answer if each.get_attribute("author_ref") in (None, ANSWER)]
        return "\n\n".join(map(text_of, said))


class _Printer:
    """Prints a text as it grows. A text that changes in another way is printed again, on a new line."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._shown = ""

    def show(self, text: str) -> None:
        if not self._enabled or text == self._shown:
            return
        if not text.startswith(self._shown):
            self._write("\n")
            self._shown = ""
        self._write(_CONTROL.sub("", text[len(self._shown) :]))
        self._shown = text

    def end(self) -> None:
        if self._enabled and self._shown:
            self._write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.asynccontextmanager
async def _conversation(room: RoomClient, agent: str, path: str, times: ChatTimes) -> AsyncIterator[_Conversation]:
    await room.messaging.enable()
    participant = _find(room, agent)
    own = _own_name(room)
    with contextlib.suppress(AlreadyExistsError):
        await room.sync.create(path=path, json=new_thread(members=[own, agent]))
    document = await room.sync.open(path=path, create=False)
    ThreadLog(document).add_members([own, agent])
    conversation = _Conversation(room, participant, path, document, times)
    room.on("reconnected", conversation.on_reconnected)
    room.messaging.on("message", conversation.on_message)
    room.messaging.on("participant_removed", conversation.on_removed)
    for event in ("inserted", "updated", "deleted"):
        document.on(event, conversation.on_change)
    try:
        yield conversation
    finally:
        await room.sync.close(path=path)


def _find(room: RoomClient, agent: str) -> RemoteParticipant:
    found = [each for each in room.messaging.remote_participants if each.get_attribute("name") == agent]
    # Of several with this name, take the one that joined last: the others are connections that are about to end.
    if not found:
        raise NotFoundError(
            f"no agent {agent!r} receives messages in room {room.room_name!r}: `meshhost messaging list` shows those that do"
        )
    return found[-1]


def _own_name(room: RoomClient) -> str:
    return str(room.local_participant.get_attribute("name") or PARTICIPANT_NAME)


async def _lines(prompt: str) -> AsyncIterator[str]:
    """Yield the lines of the standard input as they are typed."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop, is_terminal = asyncio.get_running_loop(), sys.stdin.isatty()

    def read(descriptor: int) -> None:
        # In a daemon thread, and without the lock of sys.stdin: Ctrl-C must end the process while this blocks.
        rest = b""
        while data := os.read(descriptor, 65536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace"))
        loop.call_soon_threadsafe(lines.put_nowait, rest.decode(errors="replace"))
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, args=(sys.stdin.fileno(),), daemon=True, name="stdin").start()
    while True:
        if is_terminal and prompt:
            sys.stdout.write(prompt)
            sys.stdout.flush()
        line = await lines.get()
        if line is None:
            return
        yield line


@contextlib.contextmanager
def _interrupts(conversation: _Conversation) -> Iterator[None]:
    """Handle Ctrl-C in the block: the first one stops the answer, the second one ends the command."""
    loop = asyncio.get_running_loop()

    def on_interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        conversation.cancel()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
