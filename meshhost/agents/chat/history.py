"""From the document of a thread to the conversation with the model: used when a thread is opened again after a while.

The document is the durable record; the conversation is rebuilt from it and need not be stored. Tool calls and reasoning are
not rebuilt: the model sees what was said.
"""

from meshhost.agents.chat.log import ThreadLog, files_of, is_notice, text_of
from meshhost.agents.chat.policy import LEFT_OUT
from meshhost.agents.context import AgentChatContext
from meshhost.documents.document import Element, MeshDocument

__all__ = ["ends_with", "load_history"]


def load_history(chat: AgentChatContext, thread: MeshDocument, *, own: str | None, max_chars: int) -> None:
    """Append the messages of the thread, of a long one those last `max_chars` characters of text that fit.

    `own` is the name the agent writes under. Notices are left out.
    """
    kept: list[Element] = []
    log, left = ThreadLog(thread), max_chars
    for message in reversed(log.messages()):
        if is_notice(message):
            continue
        left -= len(text_of(message))
        if left < 0:
            chat.append_user_message(LEFT_OUT)
            break
        kept.insert(0, message)
    people = {*log.members(), *(each.get_attribute("author_name") for each in kept)} - {own}
    for message in kept:
        _append(chat, message, own, several=len(people) > 1)


def _append(chat: AgentChatContext, message: Element, own: str | None, *, several: bool) -> None:
    author, text = message.get_attribute("author_name"), text_of(message)
    if author == own:
        chat.append_assistant_message(text)
        return
    chat.append_user_message(f"{author}: {text}" if several and author else text)
    for path in files_of(message):
        chat.append_user_message(f"[A file is attached: {path!r}]")


def ends_with(chat: AgentChatContext, text: str) -> bool:
    """Whether this text is among the user messages that the conversation ends with."""
    for message in reversed(chat.conversation):
        if message.get("role") != "user":
            return False
        if str(message.get("content")).endswith(text):
            return True
    return False
