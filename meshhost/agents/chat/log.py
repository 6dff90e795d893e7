"""`ThreadLog`: the document of a thread, read and written as a list of messages.

The element and attribute names are those of the thread schema (`meshhost.documents.thread_schema`), which MeshAgent's
clients know; the kinds of messages in `author_ref` are ours. The document may change at any time by other participants'
edits, so nothing is cached here: each method looks at the document as it is now.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from meshhost.documents.document import Element, MeshDocument

__all__ = ["ANSWER", "ANSWERING", "ERROR", "INTERRUPTED", "NOTICE", "ThreadLog", "new_thread"]

# Values of `author_ref`, by which an agent marks the kind of its messages. ANSWERING is followed by the id of the participant
# that is writing the answer.
ANSWERING = "meshhost:answering:"
ANSWER = "meshhost:answer"
NOTICE = "meshhost:notice"  # shown to people, but not part of the conversation with the model
ERROR = "meshhost:error"  # a notice that something went wrong
INTERRUPTED = "(interrupted)"


def new_thread(*, members: Sequence[str], name: str | None = None) -> dict[str, Any]:
    """Return the content of a thread without messages, for `room.sync.create`."""
    people = [{"member": {"name": member}} for member in members]
    properties = [{"members": {"items": people}}, {"messages": {"items": []}}]
    return {"thread": {"properties": properties}}


class ThreadLog:
    """Reads and writes a thread. Edits raise InvalidRequestError when the document's schema does not allow them."""

    def __init__(self, document: MeshDocument) -> None:
        self.document = document

    def __repr__(self) -> str:
        return f"<ThreadLog messages={len(self.messages())}>"

    @property
    def is_ready(self) -> bool:
        """Whether the document has a `messages` element; a client that is creating the thread may not have added it yet."""
        return self._find("messages") is not None

    def members(self) -> list[str]:
        """Return the names of the members."""
        members = self._find("members")
        found = members.get_children_by_tag_name("member") if members else []
        return [name for each in found if isinstance(name := each.get_attribute("name"), str)]

    def add_members(self, names: Iterable[str]) -> None:
        """Add these members, except those who are members already."""
        present = self.members()
        for name in dict.fromkeys(names):
            if name not in present:
                self._ensure("members").append_child("member", {"name": name})

    def messages(self) -> list[Element]:
        """Return the `message` elements, oldest first."""
        place = self._find("messages")
        return place.get_children_by_tag_name("message") if place else []

    def find(self, id: str) -> Element | None:
        """Return the message with this value of its attribute `id`, or None."""
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
        """Append a message and return its element. `ref` is one of the kinds above, `attachments` are paths of files."""
        attributes = {
            "id": id or str(uuid.uuid4()),
            "text": clean_text(text),
            "created_at": _now(),
            "author_name": author,
        }
        if ref is not None:
            attributes["author_ref"] = ref
        element = self._ensure("messages").append_child("message", attributes)
        for path in attachments:
            element.append_child("file", {"path": path})
        return element

    def add_exec(self, command: str) -> Element:
        """Append a command or tool call, with an empty `result`, and return its element."""
        attributes = {"command": clean_text(command), "result": "", "pwd": "", "created_at": _now()}
        return self._ensure("messages").append_child("exec", attributes)

    def add_reasoning(self) -> Element:
        """Append a reasoning with an empty `summary` and return its element."""
        return self._ensure("messages").append_child("reasoning", {"summary": "", "created_at": _now()})

    def clear(self) -> None:
        """Delete all messages, tool calls and reasonings."""
        place = self._find("messages")
        for child in place.get_children() if place else ():
            if isinstance(child, Element):
                child.delete()

    def interrupt_unfinished(self, author: str, present: Iterable[str]) -> int:
        """Mark those answers of `author` as interrupted whose writer is not among the ids `present`; return how many."""
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
        """Add the `messages` element, unless there is one."""
        self._ensure("messages")

    def _find(self, tag_name: str) -> Element | None:
        # Two clients that created the thread at the same time may have added two such elements: everybody uses the first.
        return next(iter(self.document.root.get_children_by_tag_name(tag_name)), None)

    def _ensure(self, tag_name: str) -> Element:
        found = self._find(tag_name)
        return self.document.root.append_child(tag_name) if found is None else found


def text_of(message: Element) -> str:
    """Return a message's text; "" when it has none."""
    text = message.get_attribute("text")
    return text if isinstance(text, str) else ""


def files_of(message: Element) -> list[str]:
    """Return the paths of a message's attachments."""
    paths = (each.get_attribute("path") for each in message.get_children_by_tag_name("file"))
    return [path for path in paths if isinstance(path, str)]


def is_notice(message: Element) -> bool:
    """Whether the message is for people only, and not part of the conversation with the model."""
    return message.get_attribute("author_ref") in (NOTICE, ERROR)


def with_note(text: str, note: str) -> str:
    """Return the text with a note behind it."""
    return f"{text}\n\n{note}" if text else note


def clean_text(text: str) -> str:
    """Return the text with lone surrogates replaced, which a document cannot store."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
