"""Which mails a mail belongs to: by References and In-Reply-To, both as they come from clients that keep only one of them.

A mail names its ancestors in References, the oldest first, and its parent in In-Reply-To. Clients drop one or the other, and
cut long lists. So the ancestors are those of the mail itself and of each ancestor that is known: `gather` asks for them by id
until there is nothing new. Answers carry the whole chain (`chain_for_answer`), shortened in the middle as RFC 5322 allows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from meshhost.mail.parsing import message_ids

__all__ = ["MOST_MAILS", "chain_for_answer", "gather", "named_by"]

MOST_MAILS = 200
"""Mails of a thread that are looked for."""
_MOST_REFERENCES = 30

Json = dict[str, Any]


def named_by(message: Mapping[str, Any]) -> list[str]:
    """Return the ids of the mails that a mail names as its ancestors, the oldest first, the parent last."""
    references = message.get("references")
    text = " ".join(references) if isinstance(references, list) else references if isinstance(references, str) else ""
    parent = message.get("in_reply_to")
    ids = [each for each in message_ids(text) if each != message.get("id")]
    if isinstance(parent, str) and parent and parent != message.get("id"):
        ids = [each for each in ids if each != parent] + [parent]
    return ids


async def gather(message: Json, load: Callable[[str], Awaitable[Json | None]], *, most: int = MOST_MAILS) -> list[Json]:
    """Return the known ancestors of a mail, the oldest first. `load` returns a mail by its id, or None.

    Ids may form circles, since senders choose them: each is asked for once.
    """
    seen = {message.get("id")}
    found: list[Json] = []
    waiting = named_by(message)[::-1]
    while waiting and len(seen) <= most:
        message_id = waiting.pop(0)
        if message_id in seen:
            continue
        seen.add(message_id)
        ancestor = await load(message_id)
        if ancestor is not None:
            found.append(ancestor)
            waiting += [each for each in named_by(ancestor)[::-1] if each not in seen]
    return _ordered(found)


def _ordered(mails: Sequence[Json]) -> list[Json]:
    """Ancestors before what names them; those that name nothing of each other in the order of their arrival."""
    by_id = {str(each.get("id")): each for each in sorted(mails, key=lambda each: str(each.get("path") or ""))}
    done: dict[str, Json] = {}

    def add(message_id: str, path: frozenset[str]) -> None:
        if message_id in done or message_id in path or message_id not in by_id:
            return
        for each in named_by(by_id[message_id]):
            add(each, path | {message_id})
        done[message_id] = by_id[message_id]

    for message_id in by_id:
        add(message_id, frozenset())
    return list(done.values())


def chain_for_answer(message: Mapping[str, Any]) -> list[str]:
    """Return the References of an answer: those of the mail, then the mail itself; the first and the newest of a long list."""
    own = message.get("id")
    ids = [*named_by(message), *([own] if isinstance(own, str) and message_ids(own) == [own] else [])]
    ids = list(dict.fromkeys(ids))
    return ids if len(ids) <= _MOST_REFERENCES else [ids[0], *ids[-_MOST_REFERENCES + 1 :]]
