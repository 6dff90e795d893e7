"""`History`: what was said in one voice call, in the provider's order, to begin another session with.

A session with the provider ends (after an hour at the latest, or with its connection), and the conversation must go on in the
next one. `session.py` writes here what both sides say, as far as the other side heard it, and what tools were called; `seed`
gives it back as items that a new session is filled with. Bounded: of a long call, the newest entries count. Pure, no I/O.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["History", "Said", "ToolUse"]

Item = dict[str, Any]

_MAX_ENTRIES = 200
_MAX_CHARS = 60_000
# Behind the words at which a voice was interrupted.
_CUT = " …"
# What stands for a turn whose words are not known.
_UNCLEAR = "(inaudible)"


@dataclass(slots=True)
class Said:
    """A turn of one side. `text` is None as long as it is not known what the caller said; then `sound` has it (PCM16, 24 kHz).

    Of the agent's turn `ms` is the length of its sound, and `heard_ms` how much was heard (None: all).
    """

    is_agent: bool
    text: str | None = None
    sound: bytes = b""
    ms: float = 0.0
    heard_ms: float | None = None

    @property
    def heard(self) -> str:
        """The words that were heard."""
        text = self.text or ""
        if self.heard_ms is None or 0 < self.ms <= self.heard_ms:
            return text
        if self.heard_ms <= 0 or self.ms <= 0:
            return ""
        words = text.split()
        kept = " ".join(words[: int(len(words) * self.heard_ms / self.ms)])
        return kept + _CUT if kept else ""

    def item(self) -> Item | None:
        """It as an item, or None when nothing was heard."""
        if self.is_agent:
            return _message("assistant", {"type": "output_text", "text": self.heard}) if self.heard else None
        if self.text is None and self.sound:
            return _message("user", {"type": "input_audio", "audio": base64.b64encode(self.sound).decode()})
        return _message("user", {"type": "input_text", "text": self.text or _UNCLEAR})


@dataclass(slots=True)
class ToolUse:
    """A call of a tool; `output` is None until it is done."""

    call_id: str
    name: str
    arguments: str
    output: str | None = None

    def items(self) -> list[Item]:
        """The call and its output."""
        call = {"type": "function_call", "call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        return [call, {"type": "function_call_output", "call_id": self.call_id, "output": self.output or ""}]


class History:
    """The turns of a call. `earlier` is the conversation before it: messages with `role` and `content`."""

    def __init__(self, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
        self._entries: list[Said | ToolUse] = []
        for message in earlier:
            text, role = _text_of(message), message.get("role")
            if text and role in ("user", "assistant"):
                self._entries.append(Said(is_agent=role == "assistant", text=text))

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<History entries={len(self._entries)}>"

    def add(self, entry: Said | ToolUse) -> None:
        """Add a turn, the newest."""
        self._entries.append(entry)
        del self._entries[:-_MAX_ENTRIES]

    def heard_sound(self, sound: bytes) -> None:
        """Keep the sound of the caller's newest turn as long as its words are not known; of earlier ones none."""
        newest = None
        for entry in self._entries:
            if isinstance(entry, Said) and not entry.is_agent:
                entry.sound, newest = b"", entry
        if newest is not None and newest.text is None:
            newest.sound = sound

    def tool_use(self, call_id: str) -> ToolUse | None:
        """The call of this id."""
        return next((entry for entry in self._entries if isinstance(entry, ToolUse) and entry.call_id == call_id), None)

    def finished_uses(self) -> list[ToolUse]:
        """The calls of tools that have an output."""
        return [entry for entry in self._entries if isinstance(entry, ToolUse) and entry.output is not None]

    @property
    def is_unanswered(self) -> bool:
        """Whether the caller, or a tool that is done, waits for an answer."""
        for entry in reversed(self._entries):
            if isinstance(entry, ToolUse):
                return entry.output is not None
            if not entry.is_agent:
                return True
            if entry.heard or entry.heard_ms is None:
                return False
        return False

    def seed(self, since: int = 0) -> list[Item]:
        """The items of what was said, oldest first, without the first `since` entries. Calls without an output are left out."""
        items: list[Item] = []
        left = _MAX_CHARS
        for entry in reversed(self._entries[since:]):
            if isinstance(entry, ToolUse):
                found = entry.items() if entry.output is not None else []
            else:
                item = entry.item()
                found = [] if item is None else [item]
            left -= sum(len(str(item.get("output") or item.get("arguments") or _text_of(item))) for item in found)
            if left < 0 and items:
                break
            items[:0] = found
        return items


def _message(role: str, part: Item) -> Item:
    return {"type": "message", "role": role, "content": [part]}


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
