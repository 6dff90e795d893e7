"""`ThreadLog`: a thread's document as what it says."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from meshhost.documents.document import Element, MeshDocument

__all__ = ["ANSWER", "ANSWERING", "ERROR", "INTERRUPTED", "NOTICE", "ThreadLog", "new_thread"]

# What `author_ref` of an agent's message says of it. Behind ANSWERING stands the id of the participant that writes.
ANSWERING = "meshhost:answering:"
ANSWER = "meshhost:answer"
NOTICE = "meshhost:notice"  # for those who read the thread, not for the model
ERROR = "meshhost:error"  # a notice that something went wrong
INTERRUPTED = "(interrupted)"


def new_thread(*, members: Sequence[str], name: str | None = None) -> dict[str, Any]:
    """The content of a thread in which nothing was said yet, as `room.sync.create` takes it."""
    people = [{"member": {"name": member}} for member in members]
    properties = [{"members": {"items": people}}, {"messages": {"items": []}}]
    return {"thread": {"properties": properties}}


class ThreadLog:
    """Reads and writes a thread. What it shows is the document as of now; editing raises InvalidRequestError."""

    def __init__(self, document: MeshDocument) -> None:
        self.document = document

    def __repr__(self) -> str:
        return f"<ThreadLog messages={len(self.messages())}>"

    @property
    def is_ready(self) -> bool:
        """Whether there is a place for messages yet; who makes a thread may not have come to that."""
        return self._find("messages") is not None

    def members(self) -> list[str]:
        """The names of those who take part."""
        members = self._find("members")
        found = members.get_children_by_tag_name("member") if members else []
        return [name for each in found if isinstance(name := each.get_attribute("name"), str)]

    def add_members(self, names: Iterable[str]) -> None:
        """Let these take part who do not yet."""
        present = self.members()
        for name in dict.fromkeys(names):
            if name not in present:
                self._make("members").append_child("member", {"name": name})

    def messages(self) -> list[Element]:
        """The `message` elements, oldest first."""
        place = self._find("messages")
        return place.get_children_by_tag_name("message") if place else []

    def find(self, id: str) -> Element | None:
        """The message of this id (its attribute `id`)."""
        return next((each for each in self.messages() if each.get_attribute("id") == id), None)

    def add(
        self,
        text: str,
        *,
        author: str,
        id: str | None = None,
        ref: str | None = None,
        attachments: Iterable[str] = (),
    ) -> Element:
        """Append a message. `ref` is one of the kinds above."""
        attributes = {
            "id": id or str(uuid.uuid4()),
            "text": clean_text(text),
            "created_at": _now(),
            "author_name": author,
        }
        if ref is not None:
            attributes["author_ref"] = ref
        element = self._make("messages").append_child("message", attributes)
        for path in attachments:
            element.append_child("file", {"path": path})
        return element

    def add_exec(self, command: str) -> Element:
        """Append something that is run; its `result` is empty."""
        attributes = {"command": clean_text(command), "result": "", "pwd": "", "created_at": _now()}
        return self._make("messages").append_child("exec", attributes)

    def add_reasoning(self) -> Element:
        """Append a reasoning whose `summary` is empty."""
        return self._make("messages").append_child("reasoning", {"summary": "", "created_at": _now()})

    def clear(self) -> None:
        """Delete all that was said and done."""
        place = self._find("messages")
        for child in place.get_children() if place else ():
            if isinstance(child, Element):
                child.delete()

    def interrupt_unfinished(self, author: str, present: Iterable[str]) -> int:
        """Say so in answers of `author` that nobody writes any more; `present` are the ids of who may. Returns how many."""
        count, writers = 0, set(present)
        for message in self.messages():
            ref = message.get_attribute("author_ref")
            if message.get_attribute("author_name") != author or not str(ref).startswith(ANSWERING):
                continue
            if str(ref).removeprefix(ANSWERING) not in writers:
                message.set_attribute("text", with_note(text_of(message), INTERRUPTED))
                message.set_attribute("author_ref", ANSWER)
                count += 1
        return count

    def make_ready(self) -> None:
        """Make the place for messages, unless there is one."""
        self._make("messages")

    def _find(self, tag_name: str) -> Element | None:
        # Two who made the thread at once may have made two places: all use the first.
        return next(iter(self.document.root.get_children_by_tag_name(tag_name)), None)

    def _make(self, tag_name: str) -> Element:
        found = self._find(tag_name)
        return self.document.root.append_child(tag_name) if found is None else found


def text_of(message: Element) -> str:
    """A message's text; "" when it has none."""
    text = message.get_attribute("text")
    return text if isinstance(text, str) else ""


def files_of(message: Element) -> list[str]:
    """The paths of a message's attachments."""
    paths = (each.get_attribute("path") for each in message.get_children_by_tag_name("file"))
    return [path for path in paths if isinstance(path, str)]


def is_notice(message: Element) -> bool:
    """Whether the message is not part of the conversation with the model."""
    return message.get_attribute("author_ref") in (NOTICE, ERROR)


def with_note(text: str, note: str) -> str:
    """The text with a remark behind it."""
    return f"{text}\n\n{note}" if text else note


def clean_text(text: str) -> str:
    """The text as a document can keep it: lone surrogates are replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
