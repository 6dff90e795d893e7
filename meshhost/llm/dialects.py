"""The APIs that a provider may speak, each with how it is asked and how its answer is read (`Dialect`).

The Responses API needs neither: it is the form in the middle.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from meshhost.llm.answer import AnswerReader
from meshhost.llm.chat_answer import ChatAnswerReader
from meshhost.llm.chat_request import chat_request
from meshhost.llm.messages_answer import MessagesAnswerReader
from meshhost.llm.messages_request import messages_request

__all__ = ["CHAT", "MESSAGES", "Dialect"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """An API of a provider.

    `path` is what follows its base URL. `member` is in each of its answers. `write` turns the body of a Responses request into
    this API's, and raises InvalidRequestError or NotFoundError. `reader` makes a reader for the answer to such a request.
    """

    name: str
    path: str
    member: str
    write: Callable[[Mapping[str, Any]], dict[str, Any]]
    reader: Callable[[Mapping[str, Any]], AnswerReader]


CHAT = Dialect("chat", "chat/completions", "choices", chat_request, ChatAnswerReader)
"""OpenAI's chat completions API, which most services and local servers offer."""

MESSAGES = Dialect("messages", "messages", "content", messages_request, MessagesAnswerReader)
"""Anthropic's Messages API."""
