"""The reference of what newer MeshAgent clients ask for, one row for each operation, and what a room of ours answers.

`OPERATIONS` names the operations of the room clients of SDK 0.56.0 in Python (as they are) and of `@meshagent/meshagent` 0.39.9
(in Python's spelling). `tests/ported/test_operations.py` asks the real clients for their methods and compares. A client whose
toolkit the server does not have (`wire/sdk056/names.py`) is one row: each of its operations is refused by the toolkit's name.
"""

from collections.abc import Mapping
from typing import NamedTuple

from docs.generate.markdown import code, page, table
from meshhost.server.wire.sdk056 import names

__all__ = ["LOCAL", "OPERATIONS", "TOOLKITS", "Offer", "pages"]

LOCAL = "makes no request"
_YES = "works"


class Offer(NamedTuple):
    """An operation: what becomes of it, and which of the two clients have it (`py`, `js`)."""

    outcome: str
    clients: str = "py js"


_PY, _JS = "py", "js"
OPERATIONS: Mapping[str, Mapping[str, Offer]] = {
    "room": {
        "call": Offer(_YES),
        "invoke": Offer(
            "works, with any content and with streams; tools of clients before 0.30 and in JavaScript take objects only"
        ),
        "invoke_nowait": Offer(_YES),
        "invoke_stream": Offer(_YES, _JS),
        "invoke_with_stream_input": Offer(_YES, _JS),
        "list_toolkits": Offer("works; agents of 0.6 and of meshhost are listed as toolkits with `run_{name}_task`"),
        "send_request": Offer(_YES),
        "close_kind": Offer(LOCAL, _PY),
        "close_reason": Offer(LOCAL, _PY),
        "wait_for_close": Offer(LOCAL),
        "wait_until_connected": Offer(LOCAL),
        "is_active_protocol": Offer(LOCAL, _JS),
        "listen": Offer(LOCAL, _JS),
    },
    "agents": {
        "make_call": Offer(_YES, _PY),
        "call": Offer(_YES, _JS),
        "invoke_tool": Offer(_YES),
        "list_toolkits": Offer(_YES),
    },
    "storage": {
        "delete": Offer("works; folders with `recursive`, at most 10,000 entries"),
        "download": Offer(_YES),
        "download_stream": Offer(_YES),
        "download_url": Offer(_YES),
        "exists": Offer(_YES),
        "list": Offer(_YES),
        "move": Offer("works for files; documents and folders are refused by name"),
        "stat": Offer(_YES),
        "upload": Offer(_YES),
        "upload_stream": Offer(_YES),
    },
    "queues": {name: Offer(_YES) for name in ("close", "drain", "list", "open", "receive", "send")},
    "messaging": {
        "broadcast_message": Offer(_YES),
        "disable": Offer(_YES),
        "enable": Offer(_YES),
        "send_message": Offer(_YES),
        "send_message_nowait": Offer(_YES),
        "stream": Offer("works between clients of 0.56 in Python; others are refused by name", _PY),
        "get_participant": Offer(LOCAL),
        "get_participant_by_name": Offer(LOCAL),
        "get_participants": Offer(LOCAL),
    },
    "sync": {
        "open": Offer(
            "works; a schema that the client brings is stored for all documents of the extension, if there is none"
        ),
        "close": Offer(_YES),
        "sync": Offer(_YES),
        "create": Offer(_YES),
        "describe": Offer("works: `path`, `schema` and `json`", _PY),
        "get_open_documents": Offer(LOCAL, _PY),
    },
    "developer": {
        "log": Offer(_YES),
        "logs": Offer(_YES),
        "log_nowait": Offer(_YES, _PY),
        "info": Offer(_YES, _PY),
        "warning": Offer(_YES, _PY),
        "error": Offer(_YES, _PY),
    },
    "livekit": {"get_connection_info": Offer("refused by name, unless the room server offers voice", _PY)},
}
TOOLKITS: Mapping[str, str] = {
    "containers": "containers",
    "datasets": "dataset",
    "memory": "memory",
    "mounts": "mounts",
    "secrets": "secrets",
    "services": "services",
    "sqlite": "sqlite",
}
"""Clients that are one toolkit as a whole, and its name."""

_INTRO = """
What the room clients of the MeshAgent SDK 0.56.0 for Python and of `@meshagent/meshagent` 0.39.9 can ask a room for, and what a
room of meshhost answers. A test asks the real clients for their methods: none is missing here. How to bring a program over:
[Migrate from MeshAgent](../how-to/migrate.md).

What is refused is refused at once, with an error that names it: code 1003 for what this server does not have, 1002 for what it
does not do in this way.
"""
_STREAMS = """
## Streams

A call whose contents stream goes through the server chunk by chunk, in order, in both directions. Nothing is kept: a chunk is
passed on when the receiver's connection has room for it, and until then its sender's connection is not read when too many wait.
A stream ends, and both sides are told,

- when the provider closes it, or for streams of messages when either side does;
- when one of the two loses its connection, or their server stops;
- when the receiver takes no chunk for 15 s, or a chunk is too large or cannot be read;
- when the provider owes an answer or a chunk and sends none for `call_seconds` (at most twice that). While the caller still
  sends, the time begins again with each chunk.

One connection may have 64 of them open as a caller, and 256 streams of files, documents and the log.
"""


def pages() -> dict[str, str]:
    """The page."""
    rows = [
        (code(f"{client}.{name}"), _yes("py" in offer.clients), _yes("js" in offer.clients), offer.outcome)
        for client, offers in OPERATIONS.items()
        for name, offer in offers.items()
        if offer.outcome != LOCAL
    ]
    wholes = [
        (code(client), code(toolkit), "all refused, with error 1003" if toolkit in names.ABSENT else _YES)
        for client, toolkit in TOOLKITS.items()
    ]
    text = page(
        "Newer MeshAgent clients",
        _INTRO,
        table(("Operation", "Python 0.56", "JavaScript", "In rooms of meshhost"), rows),
        "Whole clients:",
        table(("Client", "Toolkit", "In rooms of meshhost"), wholes),
        _STREAMS,
    )
    return {"reference/newer-clients.md": text}


def _yes(has: bool) -> str:
    return "yes" if has else "no"
