"""The model's answer, read without trusting the shape it came in.

Services that claim OpenAI's API differ from it: the last event has no output although the items were streamed, `output` is
null or a text, two tool calls share an id or have none, arguments are an object instead of its JSON text. `AnswerReader`
takes each event as a dict and keeps the streamed items; `Answer` is the result in one shape, whatever came. `stream.py` feeds
the reader, `exchange.py` reads the answer.

Invariants: each item of `Answer.items` may be sent back to the API as it is (no nulls, no lone surrogates, and each call has
an id of its own), and nothing that the model said is lost because a gateway said it in another place.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshhost.errors import LLMRefusalError

__all__ = ["Answer", "AnswerReader", "answer_of", "clean_text", "cleaned"]

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `error` is the provider's error and `reason` why the answer is incomplete, each as it came."""

    items: list[Item] = field(default_factory=list)
    status: str = "completed"
    error: Any = None
    reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calls(self) -> list[Item]:
        """The calls of tools, in order; each has `call_id`, `name` and `arguments` as texts."""
        return [item for item in self.items if item.get("type") == "function_call"]

    @property
    def is_empty(self) -> bool:
        """Whether the model said nothing and did nothing; reasoning alone is not an answer."""
        is_silent = not self._parts("refusal") and not "".join(self._parts("text")).strip()
        return is_silent and all(item.get("type") in ("message", "reasoning") for item in self.items)

    @property
    def used_tools(self) -> bool:
        """Whether the model called a tool, ours or one that the provider runs."""
        return any(item.get("type") not in ("message", "reasoning") for item in self.items)

    def text(self) -> str:
        """Return what the model said. Raises LLMRefusalError when it declined to answer."""
        for reason in self._parts("refusal"):
            raise LLMRefusalError(reason)
        return "".join(self._parts("text"))

    def _parts(self, name: str) -> list[str]:
        messages = [item for item in self.items if item.get("type") == "message"]
        kind = "refusal" if name == "refusal" else "output_text"
        return [str(part.get(name) or "") for item in messages for part in item["content"] if part.get("type") == kind]


class AnswerReader:
    """Collects the items of a stream; `finish` merges them with the last event's response."""

    def __init__(self) -> None:
        self._done: list[Item] = []
        self._open: dict[object, Item] = {}  # items that were announced and are not done, by their index or id
        self._texts: dict[object, list[str]] = {}  # the deltas of each text part, by item and part

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event; those that carry no content are ignored."""
        item, place = event.get("item"), event.get("output_index", event.get("item_id"))
        match event.get("type"):
            case "response.output_item.added" if isinstance(item, dict):
                self._open[place] = item
            case "response.function_call_arguments.done" if place in self._open:
                self._open[place] = {**self._open[place], "arguments": event.get("arguments")}
            case "response.output_text.delta":
                part = (event.get("item_id"), event.get("output_index"), event.get("content_index"))
                self._texts.setdefault(part, []).append(str(event.get("delta") or ""))
            case "response.output_item.done" if isinstance(item, dict):
                self._open.pop(place, None)
                # An event that was sent twice repeats the item with its id; calls without one are calls of their own.
                if not (item.get("id") or item.get("call_id")) or item not in self._done:
                    self._done.append(item)

    def finish(self, response: object, status: str = "completed") -> Answer:
        """Return the answer; `response` is the body that the last event has, if it has one."""
        answer = answer_of(response, status)
        streamed = _normalised([*self._done, *(item for item in self._open.values() if _is_whole_call(item))])
        if len(streamed) > len(answer.items):
            answer = Answer(streamed, answer.status, answer.error, answer.reason, answer.usage)
        if answer.is_empty and (said := "".join(piece for part in self._texts.values() for piece in part)).strip():
            answer.items.extend(_normalised([said]))
        return answer


def answer_of(response: object, status: str = "completed") -> Answer:
    """Return the answer in a response body, however it is shaped. `status` is used when the body names none."""
    body = response if isinstance(response, dict) else {}
    details, usage = body.get("incomplete_details"), body.get("usage")
    reason = details.get("reason") if isinstance(details, dict) else None
    found = body.get("status")
    return Answer(
        items=_normalised(body.get("output")),
        status=found if isinstance(found, str) and found else status,
        error=body.get("error"),
        reason=str(reason) if reason else None,
        usage=usage if isinstance(usage, dict) else {},
    )


def cleaned(value: Any, *, without_nulls: bool = False) -> Any:
    """Return a copy of a JSON value whose texts can be encoded; with `without_nulls`, members that are null are left out."""
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {
                cleaned(name): cleaned(member, without_nulls=without_nulls)
                for name, member in value.items()
                if not (without_nulls and member is None)
            }
        case list() | tuple():
            return [cleaned(member, without_nulls=without_nulls) for member in value]
        case _:
            return value


def clean_text(text: str) -> str:
    """Return the text with lone surrogates replaced, which no API accepts; pairs become the character they stand for."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_whole_call(item: Item) -> bool:
    return item.get("type") == "function_call" and bool(item.get("name")) and bool(item.get("arguments"))


def _normalised(output: object) -> list[Item]:
    given = output if isinstance(output, list) else [output]
    items: list[Item] = []
    taken: set[str] = set()
    for each in given:
        if isinstance(each, str) and each:
            items.append(_message({"content": each}))
        elif isinstance(each, dict):
            item = cleaned(each, without_nulls=True)
            kind = item.get("type")
            if kind == "message" or (kind is None and item.get("role") == "assistant"):
                items.append(_message(item))
            elif kind == "function_call":
                items.append(_call(item, taken))
            elif kind is not None:
                items.append(item)
    return items


def _message(item: Item) -> Item:
    content = item.get("content") or []
    parts = content if isinstance(content, list) else [content]
    return {**item, "type": "message", "role": "assistant", "content": [_part(p) for p in parts if p]}


def _part(part: Any) -> Item:
    if isinstance(part, dict):
        is_text = part.get("type") in (None, "text") and "text" in part
        return {**part, "type": "output_text", "text": str(part["text"])} if is_text else part
    return {"type": "output_text", "text": str(part), "annotations": []}


def _call(item: Item, taken: set[str]) -> Item:
    given = item.get("call_id") or item.get("id")
    call_id = str(given) if given and str(given) not in taken else f"call_{uuid.uuid4().hex}"
    if given and call_id != str(given):
        item.pop("id", None)  # two items of one id are refused when they are sent back
    taken.add(call_id)
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments)
    return {**item, "call_id": call_id, "name": str(item.get("name") or "unnamed"), "arguments": arguments}
