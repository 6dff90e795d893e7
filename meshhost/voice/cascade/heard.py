"""What of an interrupted answer stays in the conversation with the model: what the caller has heard, and all tool calls.

The adapter appends a whole answer, or nothing of it when it was cancelled. A caller who interrupts has heard a part; told that
it said all, the model would refer to what nobody knows. Tool calls stay: they were done.
"""

from typing import Any

from meshhost.agents.context import AgentChatContext, Checkpoint

__all__ = ["keep_heard"]

# Behind the words at which a voice was interrupted.
CUT = " …"


def keep_heard(context: AgentChatContext, before: Checkpoint, heard: str) -> None:
    """Reduce what was added since the checkpoint to what was heard; `heard` is the beginning of all its texts."""
    known = len(before.previous_messages) + len(before.messages)
    added = [*context.previous_messages, *context.messages][known:]
    context.roll_back(before)
    left = " ".join(heard.split())
    for number, message in enumerate(added):
        text = _said(message)
        if text is None:
            # A thought is only valid in front of what it led to.
            if message.get("type") != "reasoning" or _leads_to_call(added[number + 1 :]):
                context.messages.append(message)
        elif text and left.startswith(text):
            context.messages.append({"role": "assistant", "content": text})
            left = left[len(text) :].lstrip()
        elif left:
            context.append_assistant_message(left + CUT)
            left = ""
    if left:
        context.append_assistant_message(left + CUT)


def _said(message: dict[str, Any]) -> str | None:
    """The text of a message of the model on one line, or None for anything else."""
    if message.get("role") != "assistant":
        return None
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [str(part.get("text") or "") for part in parts if isinstance(part, dict)]
    return " ".join(" ".join(texts).split())


def _leads_to_call(rest: list[dict[str, Any]]) -> bool:
    following = next((each for each in rest if each.get("type") != "reasoning"), None)
    return following is not None and _said(following) is None
