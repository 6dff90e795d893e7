"""What archives of tenants and rooms contain: the names of their entries, and the lines in these.

`exports` writes with this module, and `imports` reads. Names of entries (version 1 of the format):

    manifest.json                        what it is
    rooms/ROOM/room.json                 the record of a room, null when it has none
    rooms/ROOM/queues/N/queue.json       the name of a queue; N is a number
    rooms/ROOM/queues/N/bodies/NAME      a large body of one of the messages that follow
    rooms/ROOM/queues/N/PART.jsonl       its messages, dead ones too, in order
    rooms/ROOM/triggers/N.jsonl          schedules, hooks and mailboxes, without their ids and secrets
    rooms/ROOM/documents/N.jsonl         a document: its path, its snapshot, its updates
    rooms/ROOM/files/PATH                a file
    rooms/ROOM/tables/NAME/N.arrow       rows of a table as an Arrow stream, from 00000001 on
    rooms/ROOM/tables/NAME/indexes.json  its indexes, after its rows
    usage/PART.jsonl                     what the tenant spent on models
    SHA256                               the checksum

Everything that is read is checked here before it reaches a store: an archive may have been made by anybody. Pure: no I/O.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, Final

from meshhost.archives.tar import damaged
from meshhost.errors import InvalidRequestError
from meshhost.gateway.prices import Price
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name
from meshhost.protocol.json_values import has_few_parts
from meshhost.stores.bodies.reference import is_object_name
from meshhost.stores.files import clean_path
from meshhost.stores.messages import HIGHEST_PRIORITY, StoredMessage
from meshhost.stores.triggers.contract import Trigger, TriggerKind
from meshhost.stores.usage import UsageCounts, UsageKey, UsageRow
from meshhost.tables.contract import IndexKind, TableIndex, check_column, check_table_name
from meshhost.triggers.hooks import HOOK_ID_BYTES, Hook, HookSpec
from meshhost.triggers.mailboxes import Mailbox
from meshhost.triggers.schedules import Schedule, ScheduleSpec, ScheduleState, new_trigger_id, timing_of
from meshhost.triggers.timing import check_time, shortest_gap

__all__ = [
    "Part",
    "bytes_of",
    "checked_path",
    "indexes_of",
    "line_of_bytes",
    "line_of_indexes",
    "line_of_message",
    "line_of_trigger",
    "line_of_usage",
    "lines_of",
    "message_of",
    "object_of",
    "part_of",
    "some_lines",
    "text_in",
    "to_line",
    "trigger_of",
    "usage_of",
]

# A message of the greatest size has less than this in JSON, and so has a document.
_LONGEST_LINE: Final = 64 * 1024 * 1024
_LONGEST_KEY: Final = 4096
_LONGEST_HEADERS: Final = 1024 * 1024
# Lines that are stored at once, and their size: a store is not held up for longer than a few milliseconds.
_STEP: Final = 200
_STEP_SIZE: Final = 512 * 1024
_MOST = 2**31 - 1
_MOST_INDEXES: Final = 1000
_TABLE_PART = re.compile(r"[0-9]{8}\.arrow")
_MOST_TOKENS = 2**62
_COUNTS = tuple(UsageCounts.__slots__)


@dataclass(frozen=True, slots=True)
class Part:
    """An entry by its name. `kind` is one that `part_of` names; `place` is a number or a path."""

    kind: str
    room: str = ""
    place: str = ""


def part_of(name: str) -> Part:
    """Return what an entry is. Raises InvalidRequestError for a name that archives do not have."""
    match name.split("/"):
        case ["usage", part] if part.endswith(".jsonl"):
            return Part("usage")
        case ["rooms", room, "room.json"]:
            return Part("room", _room(room))
        case ["rooms", room, "queues", number, "queue.json"]:
            return Part("queue", _room(room), number)
        case ["rooms", room, "queues", _, "bodies", name] if is_object_name(name):
            return Part("body", _room(room), name)
        case ["rooms", room, "queues", number, part] if part.endswith(".jsonl"):
            return Part("messages", _room(room), number)
        case ["rooms", room, "triggers", part] if part.endswith(".jsonl"):
            return Part("triggers", _room(room), part)
        case ["rooms", room, "documents", part] if part.endswith(".jsonl"):
            return Part("document", _room(room), part)
        case ["rooms", room, "tables", table, part]:
            return _table_part(_room(room), _table(table), part)
        case ["rooms", room, "files", *path] if path:
            return Part("file", _room(room), checked_path("/".join(path)))
    raise damaged(f"an entry has an unknown name: {name[:200]!r}")


def checked_path(path: str) -> str:
    """Return a path in a room. Raises InvalidRequestError unless it is one that a room may have."""
    if not path or clean_path(path) != path:
        raise damaged(f"a path is not one: {path[:200]!r}")
    return path


def to_line(value: object) -> bytes:
    """Return a value as a line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class lines_of(Iterator[dict[str, Any]]):  # noqa: N801 - used like a function
    """Yields the objects in lines of JSON; `read` are the bytes that it has read. Raises InvalidRequestError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read = 0

    def __next__(self) -> dict[str, Any]:
        line = self._file.readline(_LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) > _LONGEST_LINE or not line.endswith(b"\n"):
            raise damaged("a line is too long or ends early")
        if not has_few_parts(line):
            raise damaged("a line holds too much")
        self.read += len(line)
        return object_of(line)


def some_lines(lines: lines_of) -> list[dict[str, Any]]:
    """Return the next lines: as many as a store takes in one step; blocks. Empty at the end."""
    found: list[dict[str, Any]] = []
    until = lines.read + _STEP_SIZE
    for line in lines:
        found.append(line)
        if len(found) == _STEP or lines.read >= until:
            break
    return found


def object_of(text: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises InvalidRequestError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise damaged("a line is no JSON object")
    return value


def text_in(value: Mapping[str, Any], name: str) -> str:
    """Return a text, which must be Unicode. Raises InvalidRequestError."""
    return _text(value.get(name), name)


def line_of_message(message: StoredMessage) -> bytes:
    """Return a message as a line: what it is and how often it was tried; what is the default is left out."""
    values = {name: value for name, value in asdict(message).items() if name != "id" and value not in (None, 0)}
    return to_line(values)


def message_of(value: Mapping[str, Any]) -> StoredMessage:
    """Return the message in a line. Raises InvalidRequestError."""
    headers = value.get("headers", {})
    died_at, reason, key = _time(value, "died_at"), value.get("reason"), value.get("key")
    return StoredMessage(
        id=0,
        body=_text(value.get("body"), "body"),
        headers=_headers(headers),
        sent_at=_time(value, "sent_at") or 0.0,
        attempts=_count(value, "attempts", _MOST),
        interruptions=_count(value, "interruptions", _MOST),
        deliveries=_count(value, "deliveries", _MOST),
        due_at=_time(value, "due_at"),
        reason=None if reason is None else _text(reason, "reason"),
        died_at=died_at,
        priority=_count(value, "priority", HIGHEST_PRIORITY, least=-HIGHEST_PRIORITY),
        key=None if key is None else _text(key, "key", most=_LONGEST_KEY),
        expires_at=_time(value, "expires_at"),
    )


def line_of_bytes(name: str, data: bytes) -> bytes:
    """Return bytes as a line."""
    return to_line({name: base64.b64encode(data).decode()})


def bytes_of(value: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes in a line. Raises InvalidRequestError."""
    try:
        return base64.b64decode(_text(value.get(name), name), validate=True)
    except (binascii.Error, ValueError):
        raise damaged(f"{name}: expected base64") from None


def line_of_trigger(trigger: Trigger) -> bytes:
    """Return a schedule or hook as a line. Its id is left out, which for a hook is its address, and so is a secret."""
    return to_line({"kind": trigger.kind, "content": json.loads(trigger.content) | {"secret": None}})


def trigger_of(value: Mapping[str, Any], room: RoomKey, now: float) -> Trigger:
    """Return the trigger in a line as a new one of this room. Raises InvalidRequestError."""
    content, kind = value.get("content"), value.get("kind")
    if not isinstance(content, dict) or kind not in set(TriggerKind):
        raise damaged("a line is no schedule, no hook and no mailbox")
    if kind == TriggerKind.HOOK:
        return _hook_of(content, room, now)
    if kind == TriggerKind.MAILBOX:
        return _mailbox_of(content, room, now)
    state = content.get("state")
    if not isinstance(state, dict) or (created_at := _time(state, "created_at")) is None:
        raise damaged("state: expected that of a schedule")
    try:
        spec = ScheduleSpec.parse(content.get("spec"))
        for name in ("created_at", "next", "last"):
            check_time(_time(state, name) or 0.0)
    except InvalidRequestError as error:
        raise damaged(str(error)) from None
    kept = ScheduleState(
        created_at,
        _time(state, "next"),
        is_paused=state.get("is_paused") is True,
        last=_time(state, "last"),
        sent=_count(state, "sent", _MOST),
        gap=shortest_gap(timing_of(spec, created_at=created_at), now),
    )
    return Schedule(new_trigger_id(now), room, spec, kept).trigger()


def _hook_of(content: Mapping[str, Any], room: RoomKey, now: float) -> Trigger:
    """A hook has another address than before, and no secret: its owner gives it one."""
    try:
        spec = HookSpec.parse(content.get("spec"))
    except InvalidRequestError as error:
        raise damaged(str(error)) from None
    return Hook(new_trigger_id(now, HOOK_ID_BYTES), room, spec, now).trigger()


def _mailbox_of(content: Mapping[str, Any], room: RoomKey, now: float) -> Trigger:
    """A mailbox keeps its address; where that is taken, it stays with whom it belongs to."""
    try:
        return Mailbox.imported(content, room, now).trigger()
    except InvalidRequestError as error:
        raise damaged(str(error)) from None


def line_of_usage(row: UsageRow) -> bytes:
    """Return a row of usage as a line, without its tenant."""
    return to_line({**row.key._asdict(), **asdict(row.counts), "tenant": None})


def usage_of(value: Mapping[str, Any], tenant: TenantId) -> UsageRow:
    """Return the row in a line as one of this tenant. Raises InvalidRequestError."""
    names = {name: _text(value.get(name), name) for name in ("room", "identity", "model")}
    # Archives of before there were prices have neither.
    value = {"price": "", "cache_write_tokens": 0, **value}
    counts: dict[str, Any] = {name: _count(value, name, _MOST_TOKENS) for name in _COUNTS if name != "seconds"}
    counts["seconds"] = _time(value, "seconds") or 0.0
    try:
        Price.of_text(price := _text(value["price"], "price"))
    except ValueError as error:
        raise damaged(f"price: {error}") from None
    key = UsageKey(tenant, **names, hour=_count(value, "hour", _MOST_TOKENS), price=price)
    return UsageRow(key, UsageCounts(**counts))


def line_of_indexes(indexes: Sequence[TableIndex]) -> bytes:
    """Return the indexes of a table as a line: of each the column, and what it is for."""
    return to_line({"indexes": [{"column": each.columns[0], "kind": each.kind} for each in indexes if each.columns]})


def indexes_of(value: Mapping[str, Any]) -> Sequence[tuple[str, IndexKind]]:
    """Return the columns and kinds of indexes. Raises InvalidRequestError."""
    indexes = value.get("indexes")
    if not isinstance(indexes, list) or len(indexes) > _MOST_INDEXES:
        raise damaged("indexes: expected a list")
    try:
        return [(check_column(_text(each["column"], "column")), IndexKind(each["kind"])) for each in indexes]
    except (KeyError, TypeError, ValueError):
        raise damaged("indexes: expected columns and kinds") from None


def _table_part(room: str, table: str, part: str) -> Part:
    if part == "indexes.json":
        return Part("table_indexes", room, table)
    if _TABLE_PART.fullmatch(part):
        return Part("table", room, f"{table}/{part.removesuffix('.arrow')}")
    raise damaged(f"a part of a table has an unknown name: {part[:200]!r}")


def _table(name: str) -> str:
    try:
        return check_table_name(name)
    except InvalidRequestError:
        raise damaged(f"no table has the name {name[:200]!r}") from None


def _room(name: str) -> str:
    try:
        return check_room_name(name)
    except InvalidRequestError:
        raise damaged(f"no room has the name {name[:200]!r}") from None


def _text(value: object, name: str, *, most: int | None = None) -> str:
    if not isinstance(value, str):
        raise damaged(f"{name}: expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise damaged(f"{name}: expected a text") from None
    if most is not None and len(value) > most:
        raise damaged(f"{name}: it is too long")
    return value


def _headers(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise damaged("headers: expected an object")
    if sum(len(name) + len(text) for name, text in value.items() if isinstance(text, str)) > _LONGEST_HEADERS:
        raise damaged("headers: they are too long")
    return {_text(name, "headers"): _text(text, "headers") for name, text in value.items()}


def _time(value: Mapping[str, Any], name: str) -> float | None:
    found = value.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise damaged(f"{name}: expected a number")
    return float(found)


def _count(value: Mapping[str, Any], name: str, most: int, *, least: int = 0) -> int:
    found = value.get(name, 0)
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise damaged(f"{name}: expected a count")
    return found
