"""The APIs that a caller may speak, each with how its request is read and its answer written (`CallerForm`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from meshhost.llm.builder import Event
from meshhost.llm.chat_caller import ChatWriter, read_chat
from meshhost.llm.messages_caller import MessagesWriter, read_messages
from meshhost.llm.sse import DONE, encode_event

__all__ = ["CHAT_CALLER", "FORMS", "MESSAGES_CALLER", "RESPONSES_CALLER", "AnswerWriter", "CallerForm"]


class AnswerWriter(Protocol):
    """Writes one answer in the caller's form, from events of the Responses API."""

    def write(self, event: Event) -> bytes:
        """Return what the event becomes in a stream; nothing for one that has no form there."""
        ...

    def end(self) -> bytes:
        """Return the end of the stream, after the last event."""
        ...

    def whole(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of an answer that is not streamed, from the body of a response."""
        ...


class _ResponsesWriter:
    def __init__(self, _: Mapping[str, Any]) -> None:
        pass

    def write(self, event: Event) -> bytes:
        return encode_event(event)

    def end(self) -> bytes:
        return DONE

    def whole(self, response: Mapping[str, Any]) -> dict[str, Any]:
        return dict(response)


@dataclass(frozen=True, slots=True)
class CallerForm:
    """An API of a caller.

    `path` is what follows `/v1/`. `read` turns its request into one of the Responses API and raises InvalidRequestError.
    `writer` makes the writer for the answer to such a request, which it is given as it came.
    """

    path: str
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    writer: Callable[[Mapping[str, Any]], AnswerWriter]


RESPONSES_CALLER = CallerForm("responses", dict, _ResponsesWriter)
CHAT_CALLER = CallerForm("chat/completions", read_chat, ChatWriter)
MESSAGES_CALLER = CallerForm("messages", read_messages, MessagesWriter)
FORMS: Mapping[str, CallerForm] = {form.path: form for form in (RESPONSES_CALLER, CHAT_CALLER, MESSAGES_CALLER)}
"""All forms, by their path."""
