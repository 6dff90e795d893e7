"""A conversation, whatever API it was written for: who said what, which tools were called, what they returned.

`entries_of` reads the `input` of a Responses request; messages of the chat API are understood too, since programs and tool
adapters that were written for it put them into a conversation. `items_of` writes the entries as items of the Responses API. The
writers of requests (`chat_request.py`, `messages_request.py`) and the readers of callers' requests work on entries only.

Items of tools that a provider runs itself (a web search) are left out: they mean nothing to another provider. What cannot be
left out, such as a file by its id, is an InvalidRequestError that names the item.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from meshhost.errors import InvalidRequestError

__all__ = [
    "Audio",
    "Called",
    "Entry",
    "File",
    "Image",
    "Part",
    "Returned",
    "Said",
    "Text",
    "Thought",
    "entries_of",
    "items_of",
    "parts_of",
    "text_of",
]


@dataclass(frozen=True, slots=True)
class Text:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its URL, which may be a data URL."""

    url: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file by its content (a data URL, or bare base64) or by its URL."""

    name: str | None
    data: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """A sound: base64 and its format, such as `wav`."""

    data: str
    format: str


Part: TypeAlias = Text | Image | File | Audio


@dataclass(frozen=True, slots=True)
class Said:
    """A message. `role` is user, assistant or system."""

    role: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call of the model; `arguments` is its JSON text. `extra` are members that its provider wants to see again."""

    call_id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Returned:
    """What a tool returned."""

    call_id: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model thought. `proof` is its signed or encrypted form, which only its own provider understands."""

    text: str
    id: str = ""
    proof: str = ""


Entry: TypeAlias = Said | Called | Returned | Thought

# Members of a tool call that Gemini's chat API wants to see again.
_CALL_EXTRA = ("extra_content",)
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


def entries_of(given: Any) -> list[Entry]:
    """Read the `input` of a request. Raises InvalidRequestError."""
    if isinstance(given, str):
        return [Said("user", (Text(given),))]
    if not isinstance(given, list):
        raise InvalidRequestError("input", "expected a text or a list of items")
    found: list[Entry] = []
    for number, item in enumerate(given):
        where = f"input[{number}]"
        if not isinstance(item, Mapping):
            raise InvalidRequestError(where, "expected an object")
        found.extend(_entries_of_item(item, where))
    return found


def items_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the entries as items of the Responses API."""
    return [_item_of(entry) for entry in entries]


def text_of(parts: Iterable[Part]) -> str:
    """Return the texts of the parts, each on lines of its own."""
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def parts_of(content: Any, where: str) -> list[Part]:
    """Read the content of a message or a tool's output: a text, or a list of parts. Raises InvalidRequestError."""
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        return [Text(json.dumps(content, ensure_ascii=False))]
    return [_part_of(part, f"{where}[{number}]") for number, part in enumerate(content)]


def _entries_of_item(item: Mapping[str, Any], where: str) -> Iterator[Entry]:
    role = item.get("role")
    match item.get("type") or ("message" if role else None):
        case "message" if role == "tool":
            yield Returned(str(item.get("tool_call_id") or ""), parts_of(item.get("content"), f"{where}.content"))
        case "message":
            yield from _message(item, where)
        case "function_call":
            yield _call(item.get("call_id") or item.get("id"), item)
        case "function_call_output":
            yield Returned(str(item.get("call_id") or ""), parts_of(item.get("output"), f"{where}.output"))
        case "reasoning":
            text = "\n\n".join(str(part.get("text") or "") for part in _dicts(item.get("summary")))
            yield Thought(text, str(item.get("id") or ""), str(item.get("encrypted_content") or ""))
        case "item_reference" | None:
            raise InvalidRequestError(where, "expected a message, a tool call or its output")
        case _:
            return


def _message(item: Mapping[str, Any], where: str) -> Iterator[Entry]:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise InvalidRequestError(f"{where}.role", "expected user, assistant, system or developer")
    if isinstance(thought := item.get("reasoning_content"), str) and thought:
        yield Thought(thought, "rs_chat")
    parts = parts_of(item.get("content"), f"{where}.content")
    if parts or not item.get("tool_calls"):
        yield Said(role, parts)
    for call in _dicts(item.get("tool_calls")):
        function = call.get("function")
        yield _call(call.get("id"), {**call, **(function if isinstance(function, Mapping) else {})})


def _call(call_id: Any, item: Mapping[str, Any]) -> Called:
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    extra = {name: item[name] for name in _CALL_EXTRA if item.get(name) is not None}
    return Called(str(call_id or ""), str(item.get("name") or ""), arguments, extra)


def _part_of(part: Any, where: str) -> Part:
    if isinstance(part, str):
        return Text(part)
    if not isinstance(part, Mapping):
        raise InvalidRequestError(where, "expected a text or an object")
    kind = part.get("type")
    match kind:
        case "input_text" | "output_text" | "text" | "summary_text":
            return Text(str(part.get("text") or ""))
        case "refusal":
            return Text(str(part.get("refusal") or ""))
        case "input_image" | "image_url":
            return _image(part, where)
        case "input_file" | "file":
            return _file(part, where)
        case "input_audio" if isinstance(sound := part.get("input_audio"), Mapping):
            return Audio(str(sound.get("data") or ""), str(sound.get("format") or "wav"))
        case _:
            raise InvalidRequestError(f"{where}.type", f"this provider takes no part of type {str(kind)[:40]!r}")


def _image(part: Mapping[str, Any], where: str) -> Image:
    given = part.get("image_url")
    url, detail = (given.get("url"), given.get("detail")) if isinstance(given, Mapping) else (given, part.get("detail"))
    if not isinstance(url, str) or not url:
        raise InvalidRequestError(f"{where}.image_url", "expected a URL or a data URL; this provider stores no files")
    return Image(url, detail if isinstance(detail, str) else None)


def _file(part: Mapping[str, Any], where: str) -> File:
    given = part["file"] if isinstance(part.get("file"), Mapping) else part
    data, url, name = (given.get(key) for key in ("file_data", "file_url", "filename"))
    if not isinstance(data, str) and not isinstance(url, str):
        raise InvalidRequestError(f"{where}.file_data", "expected the content; this provider stores no files")
    return File(
        name if isinstance(name, str) else None,
        data if isinstance(data, str) else None,
        url if isinstance(url, str) else None,
    )


def _dicts(given: Any) -> list[Mapping[str, Any]]:
    return [each for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []


def _item_of(entry: Entry) -> dict[str, Any]:
    match entry:
        case Said(role, parts):
            kind = "output_text" if role == "assistant" else "input_text"
            return {"type": "message", "role": role, "content": [_part_item(part, kind) for part in parts]}
        case Called(call_id, name, arguments, extra):
            return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **extra}
        case Returned(call_id, parts):
            output = [_part_item(part, "input_text") for part in parts]
            is_text = all(isinstance(part, Text) for part in parts)
            return {
                "type": "function_call_output",
                "call_id": call_id,
                "output": text_of(parts) if is_text else output,
            }
        case Thought(text, id, proof):
            summary = [{"type": "summary_text", "text": text}] if text else []
            return {
                "type": "reasoning",
                "id": id,
                "summary": summary,
                **({"encrypted_content": proof} if proof else {}),
            }


def _part_item(part: Part, text_kind: str) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": text_kind, "text": text, **({"annotations": []} if text_kind == "output_text" else {})}
        case Image(url, detail):
            return {"type": "input_image", "image_url": url, "detail": detail or "auto"}
        case File(name, data, url):
            fields = {"filename": name, "file_data": data, "file_url": url}
            return {
                "type": "input_file",
                **{key: value for key, value in fields.items() if value is not None},
            }
        case Audio(data, format):
            return {"type": "input_audio", "input_audio": {"data": data, "format": format}}
