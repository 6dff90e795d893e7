"""An answer while it is being made, as the members of a thread see it: the growing text, the reasoning, the tool calls.

The model's adapter sends events (those of the Responses API) to `AnswerWriter.on_event`, which only changes what is to be
shown. `run`, a task of the thread, writes the changes into the document several times a second, so that a fast model does
not cause an update per token; `end` writes the rest and marks the answer as finished. `shown_toolkits` wraps toolkits so
that each tool call appears in the thread, too.

Invariant: the document is a display only. A deleted element, or a schema without a place for tool calls, never
stops the answer itself.
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

# Seconds between two updates. Each carries the whole text, so a long text is updated less often: CHARS_PER_SECOND at most.
INTERVAL = 0.05
CHARS_PER_SECOND = 100_000
# Characters shown of a tool call and of its result.
MAX_SHOWN = 2000

Event: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class _Part:
    """A growing text and where it is shown: `attribute` of `element`."""

    element: Element
    attribute: str
    text: str = ""
    is_dirty: bool = False

    def write(self) -> None:
        self.is_dirty = False
        try:
            self.element.set_attribute(self.attribute, clean_text(self.text))
        except InvalidRequestError as error:  # the element was deleted: the answer goes on without it
            logger.info("part of an answer not shown", extra={"reason": str(error)})


class AnswerWriter:
    """Shows one answer: pass `on_event` to the model's adapter, run `run` meanwhile, and call `end` however it ended.

    `author` is the name the answer is shown under. `writer_id` is the id of the writing participant: by it an agent that is
    started again finds the answers that its former self did not finish.
    """

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
        """Whether the model has produced any text."""
        return any(part.attribute == "text" for part in self._all())

    def has_said(self, text: str) -> bool:
        """Whether this text is shown already. An adapter that sends no events, or not for every text, only returns it."""
        return clean_text(text) in clean_text("".join(part.text for part in self._all() if part.attribute == "text"))

    @property
    def unsettled_text(self) -> str:
        """The text of the turn in progress, which the conversation does not have yet."""
        return "\n\n".join(part.text for part in self._parts.values() if part.attribute == "text" and part.text)

    def on_event(self, event: Any) -> None:
        """Take an event of the Responses API as a dict; unknown events are ignored."""
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
                self._finish_turn()
            case "meshhost.turn.retried":
                self._take_back()
            case _:
                pass

    def say(self, text: str) -> None:
        """Show a whole text."""
        self._finish(("text", object()), text)

    async def run(self) -> None:
        """Write changes into the document until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._write()
            longest = max((len(part.text) for part in self._parts.values()), default=0)
            await self._clock.sleep(max(INTERVAL, longest / CHARS_PER_SECOND))

    def end(self, note: str = "") -> None:
        """Write the rest and mark the answer as finished; an answer that was cut short gets a `note` behind its text."""
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
        if key[1] is None:  # an adapter that names no items: its next text is a new part
            self._ended.append(self._parts.pop(key))

    def _part(self, key: tuple[object, ...]) -> _Part:
        if key not in self._parts:
            is_text = key[0] == "text"
            add = self._log.add("", author=self._author, ref=self._ref) if is_text else self._log.add_reasoning()
            self._parts[key] = _Part(add, str(key[0]))
        return self._parts[key]

    def _finish_turn(self) -> None:
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
    """Passes calls on to a toolkit and shows each in the thread."""

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
        except (
            InvalidRequestError
        ) as error:  # the room has its own thread schema, without a place for this; the tool works all the same
            logger.info("tool call not shown", extra={"reason": str(error)})
            return None

    def _finish(self, shown: Element | None, result: str) -> None:
        if shown is not None and self._log.document.is_live(shown):
            shown.set_attribute("result", clean_text(_short(result)))


def shown_toolkits(toolkits: Sequence[Toolkit], log: ThreadLog) -> list[Toolkit]:
    """Return the same toolkits, whose tool calls are shown in the thread."""
    return [_ShownToolkit(toolkit, log) for toolkit in toolkits]


def _shown(response: Response) -> str:
    match response:
        case TextResponse() | ErrorResponse():
            return response.text
        case JsonResponse():
            try:
                return json.dumps(response.json, ensure_ascii=False, default=str)
            except (TypeError, ValueError, RecursionError):  # the tool has worked: only its answer is not JSON
                return "an answer that is not JSON"
        case _:
            return response.type


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
