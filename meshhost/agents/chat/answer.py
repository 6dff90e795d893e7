"""An answer on its way into a thread: the model's text as it grows, its reasoning, the tools it uses.

Which task runs when: events come from the model's adapter and only change what is to be shown; `run`, a task of whoever owns
the answer, writes that into the document some times a second. `end` writes the rest.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from meshhost.agents.chat.log import ANSWER, ANSWERING, ThreadLog, clean_text, with_note
from meshhost.clock import Clock
from meshhost.documents.document import Element
from meshhost.errors import InvalidRequestError
from meshhost.protocol.messages import ErrorResponse, JsonResponse, Response, TextResponse
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["AnswerWriter", "shown_toolkits"]

logger = logging.getLogger(__name__)

# Seconds between two updates of a short text. Each carries the whole text: for a long one they become rarer.
INTERVAL = 0.05
CHARS_PER_SECOND = 100_000
MAX_SHOWN = 2000

Event: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class _Part:
    """A text that grows; `attribute` of `element` shows it."""

    element: Element
    attribute: str
    text: str = ""
    is_dirty: bool = False

    def write(self) -> None:
        self.is_dirty = False
        try:
            self.element.set_attribute(self.attribute, clean_text(self.text))
        except InvalidRequestError as error:  # deleted by somebody: the answer goes on without it
            logger.info("part of an answer not shown", extra={"reason": str(error)})


class AnswerWriter:
    """Shows one answer. Give `on_event` to the model's adapter, run `run`, and `end` it in any case."""

    def __init__(self, *, log: ThreadLog, author: str, writer_id: str, clock: Clock) -> None:
        self._log = log
        self._author = author
        self._ref = f"{ANSWERING}{writer_id}"
        self._clock = clock
        self._parts: dict[tuple[object, ...], _Part] = {}
        self._ended: list[_Part] = []
        self._changed = asyncio.Event()

    @property
    def has_text(self) -> bool:
        """Whether the model has said anything."""
        return any(part.attribute == "text" for part in self._all())

    @property
    def unsettled_text(self) -> str:
        """What was said in a turn that has not come to its end."""
        return "\n\n".join(part.text for part in self._parts.values() if part.attribute == "text" and part.text)

    def on_event(self, event: Any) -> None:
        """Take an event of the Responses API, as a dict; others are passed over."""
        if not isinstance(event, dict):
            return
        key = (event.get("item_id"), event.get("content_index"), event.get("summary_index"))
        match event.get("type"):
            case "response.output_text.delta":
                self._grow(("text", *key), str(event.get("delta", "")))
            case "response.output_text.done":
                self._finish(("text", *key), str(event.get("text", "")))
            case "response.reasoning_summary_text.delta":
                self._grow(("summary", *key), str(event.get("delta", "")))
            case "response.reasoning_summary_text.done":
                self._finish(("summary", *key), str(event.get("text", "")))
            case "response.completed":
                self._settle()
            case "meshhost.turn.retried":
                self._take_back()
            case _:
                pass

    def say(self, text: str) -> None:
        """Show a text as a whole."""
        self._finish(("text", object()), text)

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._write()
            longest = max((len(part.text) for part in self._parts.values()), default=0)
            await self._clock.sleep(max(INTERVAL, longest / CHARS_PER_SECOND))

    def end(self, note: str = "") -> None:
        """Write the rest; with a `note` behind the text when the answer did not come to its end."""
        if note and not self.has_text:
            self._finish(("text", object()), note)
        elif note:
            last = [part for part in self._all() if part.attribute == "text"][-1]
            last.text, last.is_dirty = with_note(last.text, note), True
        self._write()
        for part in self._all():
            if part.attribute == "text" and self._log.document.is_live(part.element):
                part.element.set_attribute("author_ref", ANSWER)

    def _all(self) -> list[_Part]:
        return [*self._ended, *self._parts.values()]

    def _grow(self, key: tuple[object, ...], delta: str) -> None:
        part = self._part(key)
        part.text += delta
        part.is_dirty = True
        self._changed.set()

    def _finish(self, key: tuple[object, ...], text: str) -> None:
        part = self._part(key)
        part.text, part.is_dirty = text, True
        self._changed.set()
        if key[1] is None:  # an adapter that names no items: its next text is another
            self._ended.append(self._parts.pop(key))

    def _part(self, key: tuple[object, ...]) -> _Part:
        if key not in self._parts:
            is_text = key[0] == "text"
            add = self._log.add("", author=self._author, ref=self._ref) if is_text else self._log.add_reasoning()
            self._parts[key] = _Part(add, str(key[0]))
        return self._parts[key]

    def _settle(self) -> None:
        self._ended += self._parts.values()
        self._parts.clear()

    def _take_back(self) -> None:
        for part in self._parts.values():
            if self._log.document.is_live(part.element):
                part.element.delete()
        self._parts.clear()

    def _write(self) -> None:
        for part in self._all():
            if part.is_dirty:
                part.write()


class _ShownToolkit(Toolkit):
    """A toolkit whose calls are shown in the thread."""

    def __init__(self, toolkit: Toolkit, log: ThreadLog) -> None:
        super().__init__(
            name=toolkit.name,
            tools=toolkit.tools,
            rules=toolkit.rules,
            title=toolkit.title,
            description=toolkit.description,
            thumbnail_url=toolkit.thumbnail_url,
        )
        self._toolkit = toolkit
        self._log = log

    async def execute(
        self, *, context: ToolContext, name: str, arguments: dict[str, Any], attachment: bytes | None = None
    ) -> Response:
        shown = self._begin(f"{name}({json.dumps(arguments, ensure_ascii=False, default=str)})")
        result = "(cancelled)"
        try:
            response = await self._toolkit.execute(
                context=context, name=name, arguments=arguments, attachment=attachment
            )
            result = _shown(response)
        except Exception as error:
            result = f"error: {error}"
            raise
        else:
            return response
        finally:
            self._finish(shown, result)

    def _begin(self, command: str) -> Element | None:
        try:
            return self._log.add_exec(_short(command))
        except InvalidRequestError as error:  # a room with a schema of its own: the tool works all the same
            logger.info("tool call not shown", extra={"reason": str(error)})
            return None

    def _finish(self, shown: Element | None, result: str) -> None:
        if shown is not None and self._log.document.is_live(shown):
            shown.set_attribute("result", clean_text(_short(result)))


def shown_toolkits(toolkits: Sequence[Toolkit], log: ThreadLog) -> list[Toolkit]:
    """The same toolkits; each call of a tool is shown in the thread."""
    return [_ShownToolkit(toolkit, log) for toolkit in toolkits]


def _shown(response: Response) -> str:
    match response:
        case TextResponse() | ErrorResponse():
            return response.text
        case JsonResponse():
            return json.dumps(response.json, ensure_ascii=False, default=str)
        case _:
            return response.type


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
