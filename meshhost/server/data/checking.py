"""Checks a whole archive before any of it is imported, and counts what is in it.

`imports` calls `check_archive` in a thread. It reads the file once from begin to end: the checksum of all bytes, the order of
the entries, and each line as the import will read it. What it lets pass can only fail at a store: one that is full, or whose
limits are smaller than those of the server that the archive is from.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal

from meshhost.archives.manifest import parse_manifest
from meshhost.archives.tar import Entry, damaged, open_entry, read_entries
from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.quotas.quota import Resource
from meshhost.server.data.content import (
    Part,
    bytes_of,
    checked_path,
    indexes_of,
    lines_of,
    message_of,
    object_of,
    part_of,
    text_in,
    trigger_of,
    usage_of,
)
from meshhost.stores.bodies.checking import check_body
from meshhost.stores.bodies.reference import BodyReference, is_reference
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.refusals import check_name

__all__ = ["Summary", "check_archive", "metadata_of"]

# Entries that are read as a whole.
_MOST_BYTES = 1024 * 1024
_MOST_TABLE_PART = 128 * 1024 * 1024
# Up to this length Python's parser is quick enough not to hold up others.
_QUICK_CHARS = 64 * 1024


@dataclass(slots=True)
class Summary:
    """How much is in an archive; `messages` without the dead ones, `body_bytes` those of large messages."""

    rooms: int = 0
    queues: int = 0
    messages: int = 0
    dead_letters: int = 0
    triggers: int = 0
    documents: int = 0
    files: int = 0
    tables: int = 0
    table_bytes: int = 0
    file_bytes: int = 0
    body_bytes: int = 0
    usage_rows: int = 0

    def counted(self) -> Mapping[Resource, int]:
        """How much of its quota a tenant needs for it."""
        return {
            Resource.QUEUES: self.queues,
            Resource.MESSAGES: self.messages + self.dead_letters,
            Resource.FILES: self.files,
            Resource.STORED_BYTES: self.file_bytes + self.body_bytes + self.table_bytes,
            Resource.TABLES: self.tables,
            Resource.DOCUMENTS: self.documents,
        }


def check_archive(file: IO[bytes], kind: Literal["tenant", "room"]) -> Summary:
    """Return what the archive holds. Raises InvalidRequestError when it is not whole, or not of this kind; blocks."""
    entries = read_entries(file)
    first = next(entries, None)
    if first is None:
        raise damaged("it is empty")
    manifest = parse_manifest(file, first)
    if manifest.kind != kind:
        raise InvalidRequestError("archive", f"it is one of a {manifest.kind}: use `meshhost {manifest.kind} import`")
    checker = _Checker()
    for entry in entries:
        checker.check(part_of(entry.name), file, entry)
    if kind == "room" and (checker.summary.rooms != 1 or checker.summary.usage_rows):
        raise damaged("it holds something else than one room")
    return checker.summary


def metadata_of(record: Mapping[str, Any]) -> str | None:
    """Return the metadata of a room's record, as JSON, or None when the room has no record."""
    if record.get("metadata") is None:
        return None
    metadata = text_in(record, "metadata")
    if len(metadata) > _MOST_BYTES:
        raise damaged("metadata: it is too large")
    object_of(metadata.encode())
    return metadata


def _check_json(text: str) -> None:
    if len(text) > _QUICK_CHARS:
        body = text.encode()
        check_body(io.BytesIO(body), len(body), "body")
        return
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("body", "expected JSON") from None


class _Checker:
    def __init__(self) -> None:
        self.summary = Summary()
        self._room = ""
        self._queues: set[str] = set()
        # The large bodies of the room, by name, and which of them messages refer to.
        self._bodies: dict[str, tuple[int, str]] = {}

    def check(self, part: Part, file: IO[bytes], entry: Entry) -> None:
        """Check an entry. Each room begins with its record, and each queue with its name."""
        content, summary = open_entry(file, entry), self.summary
        if part.kind not in {"room", "usage"} and part.room != self._room:
            raise damaged(f"the room {part.room!r} begins elsewhere")
        if part.kind in {"room", "queue", "table_indexes"} and entry.size > _MOST_BYTES:
            raise damaged("an entry is too large")
        match part.kind:
            case "room":
                metadata_of(object_of(content.read()))
                self._room, self._queues, self._bodies = part.room, set(), {}
                summary.rooms += 1
            case "queue":
                check_name(QueueKey(RoomKey(TenantId(""), part.room), text_in(object_of(content.read()), "name")))
                self._queues.add(part.place)
                summary.queues += 1
            case "messages":
                self._check_messages(part, content)
            case "body":
                self._check_large(part, content, entry.size)
            case "document":
                self._check_document(content)
            case "file":
                summary.files += 1
                summary.file_bytes += entry.size
            case "table" | "table_indexes":
                self._check_table(part, content, entry.size)
            case _:
                self._check_lines(part, content)

    def _check_messages(self, part: Part, content: IO[bytes]) -> None:
        if part.place not in self._queues:
            raise damaged("messages come before their queue")
        for line in lines_of(content):
            message = message_of(line)
            self._check_body(message.body)
            is_dead = message.died_at is not None
            self.summary.dead_letters += is_dead
            self.summary.messages += not is_dead

    def _check_large(self, part: Part, content: IO[bytes], size: int) -> None:
        if part.place in self._bodies:
            raise damaged("two bodies have one name")
        found = check_body(content, size, "body")
        self._bodies[part.place] = (found.size, found.sha256)
        self.summary.body_bytes += found.size

    def _check_body(self, text: str) -> None:
        """A reference is to a body of this room that came before, and to one that no other message has. Others are JSON."""
        if not is_reference(text):
            _check_json(text)
        else:
            reference = BodyReference.parse(text)
            if self._bodies.pop(reference.name, None) != (reference.size, reference.sha256):
                raise damaged("a message has a large body that is not there")

    def _check_lines(self, part: Part, content: IO[bytes]) -> None:
        for line in lines_of(content):
            if part.kind == "triggers":
                trigger_of(line, RoomKey(TenantId(""), part.room), 0.0)
                self.summary.triggers += 1
            else:
                usage_of(line, TenantId(""))
                self.summary.usage_rows += 1

    def _check_table(self, part: Part, content: IO[bytes], size: int) -> None:
        """The rows themselves are read in the process that stores them."""
        if part.kind == "table_indexes":
            indexes_of(object_of(content.read()))
            return
        if size > _MOST_TABLE_PART:
            raise damaged("a part of a table is too large")
        self.summary.tables += part.place.endswith("/00000001")
        self.summary.table_bytes += size

    def _check_document(self, content: IO[bytes]) -> None:
        lines = lines_of(content)
        checked_path(text_in(next(lines, {}), "path"))
        bytes_of(next(lines, {}), "snapshot")
        for line in lines:
            bytes_of(line, "update")
        self.summary.documents += 1
