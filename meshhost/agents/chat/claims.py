"""Which element of a thread's document belongs to which `chat` message.

A client does two things when its user writes: it adds a `message` element to the document, and it sends the bot a `chat`
message with the same text. The two arrive by different ways and in either order, and some clients only send the message.
`MessageClaims` finds the element of each message, so that nothing is shown or told to the model twice. An element is
claimed at most once: the same text sent twice is two messages.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from meshhost.agents.chat.log import ThreadLog, text_of
from meshhost.agents.chat.policy import ChatRequest
from meshhost.documents.document import MeshDocument

__all__ = ["MessageClaims", "wait_for_document"]


class MessageClaims:
    """The elements of one open thread that were matched with a message, or that the conversation was loaded from."""

    def __init__(self) -> None:
        self._loaded: set[str | None] = set()
        self._claimed: set[str | None] = set()

    def load(self, log: ThreadLog) -> int:
        """Note that the conversation is loaded from all elements in the log; return how many there are."""
        self._loaded = {message.id for message in log.messages()}
        return len(self._loaded)

    def is_loaded(self, id: str | None) -> bool:
        """Whether the conversation was loaded from this element."""
        return id in self._loaded

    async def claim(
        self, request: ChatRequest, log: ThreadLog, *, sender: str | None, bot: str, seconds: float
    ) -> str | None:
        """Return the id of the message's element, after at most `seconds`; add an element when none has appeared.

        `sender` and `bot` are the names under which the sender and the bot write.
        """
        await wait_for_document(log.document, lambda: self._find(request, log, sender, bot) is not None, seconds)
        found = self._find(request, log, sender, bot)
        if found is None:
            author = sender or "somebody"
            found = log.add(request.text, author=author, id=request.id, attachments=request.attachments).id
        self._claimed.add(found)
        return found

    def _find(self, request: ChatRequest, log: ThreadLog, sender: str | None, bot: str) -> str | None:
        for message in reversed(log.messages()):
            author = message.get_attribute("author_name")
            if message.id in self._claimed or (sender is not None and author != sender):
                continue
            if request.id is not None and message.get_attribute("id") == request.id:
                return message.id
            if request.id is None and author != bot and text_of(message) == request.text:
                return message.id
        return None


async def wait_for_document(document: MeshDocument, condition: Callable[[], bool], seconds: float) -> None:
    """Wait until the document fulfils the condition, at most this long; it is checked again after each change."""
    changed = asyncio.Event()

    def on_change(*_: Any) -> None:
        changed.set()

    for event in ("inserted", "updated"):
        document.on(event, on_change)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    await changed.wait()
                    changed.clear()
    finally:
        for event in ("inserted", "updated"):
            document.off(event, on_change)
