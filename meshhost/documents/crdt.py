"""The CRDT of a document: merges the edits of many, in any order, to one state. The one place that touches pycrdt.

`SharedDocument` is used by both sides: by `MeshDocument` in clients, which edits it and sends its updates, and by the room
server, which applies and stores them. Updates are in the Yjs update format, version 1. Updates of others are not trusted:
pycrdt applies some only half before it refuses them, and panics at others. So the updates that were good are kept beside
the document, and it is rebuilt from them after a failure. Invariants: a refused update leaves the document as it was; and
an update that depends on a missing one is kept until that arrives. For one thread; nothing here waits.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pycrdt
from pycrdt import XmlElement, XmlFragment, XmlText

from meshhost.errors import InvalidRequestError, LimitExceededError, TooLargeError

__all__ = [
    "EMPTY_UPDATE",
    "Delta",
    "ElementNode",
    "Node",
    "NodeChange",
    "SharedDocument",
    "Step",
    "XmlElement",
    "XmlText",
    "attributes_of",
    "child_count",
    "children_of",
    "delete",
    "delete_text",
    "delta_of",
    "format_text",
    "insert_element",
    "insert_text",
    "merge_updates",
    "remove_attribute",
    "set_attribute",
]

# No structs, no deletions.
EMPTY_UPDATE = b"\x00\x00"
_ROOT = "xml"
# Newer versions of the library give editors ids of 53 bits. Older ones, such as that of the MeshAgent SDK, cut them to 32 bits
# and would attribute an edit to another editor; so ids here have 32 bits.
_CLIENTS = 2**32
_OBJECT = "\N{OBJECT REPLACEMENT CHARACTER}"
# Beyond this many updates or bytes the kept updates are folded into one state.
_MAX_RECORDED = 200
_MAX_RECORDED_BYTES = 256 * 1024
# Bounds the updates that wait for missing ones: all of them are tried again with each update.
_MAX_WAITING_BYTES = 1024 * 1024

ElementNode: TypeAlias = XmlElement | XmlFragment
Node: TypeAlias = XmlElement | XmlText
# ("retain" or "delete", how many) or ("insert", nodes).
Step: TypeAlias = tuple[str, int] | tuple[str, list[Node]]
# Runs of a text, each `{"insert": text, "attributes": its formats}`.
Delta: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node whose content changed: its children or text (`content`), and the attributes of these names.

    `steps` lead from the children before to those after: keep this many, delete this many, insert these nodes; the rest is
    kept. None when that is unknown, and the children have to be read.
    """

    node: Node | ElementNode
    content: bool
    attributes: Sequence[str]
    steps: Sequence[Step] | None


@dataclass(slots=True)
class _Seen:
    """Updates and changes that the document reported during a transaction."""

    updates: list[bytes] = field(default_factory=list)
    changes: list[NodeChange] = field(default_factory=list)


def merge_updates(updates: Sequence[bytes]) -> bytes:
    """Return one update with the effect of all."""
    return updates[0] if len(updates) == 1 else pycrdt.merge_updates(*updates)


class SharedDocument:
    """A document that several edit at once; for one thread.

    `on_update` gets each local edit as an update, `on_changes` what changed in the tree by any edit or update; `on_reset` is
    called when all nodes are new ones. `max_bytes` bounds the document and its early updates, `max_waiting_bytes` only those.
    """

    def __init__(
        self,
        *,
        max_bytes: int | None = None,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
        on_update: Callable[[bytes], None] = lambda _: None,
        on_changes: Callable[[Sequence[NodeChange]], None] = lambda _: None,
        on_reset: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_bytes, self._max_waiting_bytes = max_bytes, max_waiting_bytes
        self._on_update = on_update
        self._on_changes = on_changes
        self._on_reset = on_reset
        self._editing = False
        self._waiting: list[bytes] = []
        # The updates that the document is made of; the first may be a whole state.
        self._recorded: list[bytes] = []
        self._restart([])

    @property
    def root(self) -> XmlFragment:
        """The one root, whose children are those of the schema's root element."""
        return self._root

    def apply_update(self, update: bytes) -> bool:
        """Apply an update of another editor; return whether it held anything new.

        Raises InvalidRequestError for bytes that are no update and LimitExceededError for what makes the document too
        large; the document is unchanged then.
        """
        with _refusing():
            adds = not _is_known(update, self._doc.get_state())
        if update in self._waiting:
            return False
        if adds:
            self._check_size(update)
        seen = _Seen()
        try:
            with _refusing():
                waiting = self._apply(update, seen)
            if sum(map(len, waiting)) > self._max_waiting_bytes:
                raise LimitExceededError("too many edits wait for others that are missing")  # noqa: TRY301 - undone below
        except (InvalidRequestError, LimitExceededError):
            self._restart(self._recorded)
            self._on_reset()
            raise
        self._waiting = waiting
        is_new = bool(seen.updates) or update in waiting
        if is_new:
            self._record(update)
        self._on_changes(seen.changes)
        return is_new

    def knows(self, update: bytes) -> bool:
        """Return whether applying the update would change nothing. Raises InvalidRequestError for bytes that are no update."""
        with _refusing():
            state = self._doc.get_state()
            if not _is_known(update, state):
                return update in self._waiting
            deleted = list(_deletions(self._doc.get_update(state)))
            return all(
                any(by == client and first <= start and end <= last for by, first, last in deleted)
                for client, start, end in _deletions(pycrdt.get_update(update, state))
            )

    def state(self) -> bytes:
        """Return the whole document as one update, including updates that wait for missing ones. Raises InvalidRequestError."""
        with _refusing():
            return merge_updates([self._doc.get_update(), *self._waiting])

    def reset(self, state: bytes) -> None:
        """Replace the content by this state. Raises InvalidRequestError for other bytes; nothing is changed then."""
        with _refusing():
            self._restart([state])
        self._on_reset()

    @contextmanager
    def edit(self) -> Iterator[None]:
        """Make the edits in the block, and in blocks inside it, one update. Changes are reported when the outer block ends."""
        if self._editing:
            yield  # part of the block around it; pycrdt panics at a transaction inside another
            return
        self._editing = True
        seen = _Seen()
        try:
            with self._watched(seen), self._doc.transaction():
                yield
        finally:
            self._editing = False
            for update in seen.updates:
                self._record(update)
                self._on_update(update)
            self._on_changes(seen.changes)

    def _apply(self, update: bytes, seen: _Seen) -> list[bytes]:
        """Apply an update and those that waited for it; return those that still wait."""
        with self._watched(seen):
            return _apply_all(self._doc, [*self._waiting, update])

    @contextmanager
    def _watched(self, seen: _Seen) -> Iterator[None]:
        # Subscribed for the moment only: a lasting subscription is a reference cycle through pycrdt, which is never collected.
        doc, root = self._doc, self._root
        of_updates = doc.observe(lambda event: seen.updates.append(event.update))
        of_nodes = root.observe_deep(lambda events: seen.changes.extend(map(_change, events)))
        try:
            yield
        finally:
            doc.unobserve(of_updates)
            root.unobserve(of_nodes)

    def _restart(self, updates: Sequence[bytes]) -> None:
        doc: pycrdt.Doc[XmlFragment] = pycrdt.Doc(client_id=secrets.randbelow(_CLIENTS))
        root = doc.get(_ROOT, type=XmlFragment)
        self._waiting = _apply_all(doc, updates)
        self._doc, self._root = doc, root
        self._recorded = list(updates)
        self._recorded_bytes = sum(map(len, updates))

    def _record(self, update: bytes) -> None:
        self._recorded.append(update)
        self._recorded_bytes += len(update)
        added = self._recorded_bytes - len(self._recorded[0])
        if len(self._recorded) > _MAX_RECORDED or added > _MAX_RECORDED_BYTES:
            self._fold()

    def _fold(self) -> None:
        self._recorded = [self._doc.get_update(), *self._waiting]
        self._recorded_bytes = sum(map(len, self._recorded))

    def _check_size(self, update: bytes) -> None:
        if self._max_bytes is None or self._recorded_bytes + len(update) <= self._max_bytes:
            return
        self._fold()
        if self._recorded_bytes + len(update) > self._max_bytes:
            raise TooLargeError(f"a document may have at most {self._max_bytes} bytes")


def child_count(node: ElementNode) -> int:
    """Return how many children an element or the root has."""
    return len(node.children)


def children_of(node: ElementNode) -> list[Node]:
    """Return the elements and texts in an element or the root."""
    return [child for child in node.children if isinstance(child, XmlElement | XmlText)]


def attributes_of(node: ElementNode) -> dict[str, Any]:
    """Return the attributes of an element; the root has none."""
    if not isinstance(node, XmlElement):
        return {}
    return {name: _plain(value) for name, value in node.attributes.__iter__()}


def insert_element(
    parent: ElementNode, index: int, tag: str, attributes: Mapping[str, Any], *, with_text: bool
) -> XmlElement:
    """Insert and return a new element before the child of this index; `with_text` gives it an empty text."""
    element: XmlElement = parent.children.insert(index, XmlElement(tag, dict(attributes)))
    if with_text:
        element.children.append(XmlText())
    return element


def delete(node: XmlElement) -> None:
    """Delete an element and all in it."""
    parent = node.parent
    if isinstance(parent, XmlElement | XmlFragment):
        del parent.children[list(parent.children).index(node)]


def set_attribute(node: XmlElement, name: str, value: Any) -> None:
    """Set an attribute to a JSON scalar."""
    node.attributes[name] = value


def remove_attribute(node: XmlElement, name: str) -> None:
    """Remove an attribute."""
    del node.attributes[name]


def delta_of(node: XmlText) -> Delta:
    """Return the runs of the text. An embedded object (of another client) is shown as one object replacement character."""
    runs: Delta = []
    for chunk, attributes in node.diff():
        formats = {name: _plain(value) for name, value in (attributes or {}).items()}
        runs.append({"insert": chunk if isinstance(chunk, str) else _OBJECT, "attributes": formats})
    return runs


def insert_text(node: XmlText, index: int, text: str, attributes: Mapping[str, Any]) -> None:
    """Insert text before the character of this index."""
    node.insert(_offset(node, index), text, dict(attributes))


def delete_text(node: XmlText, start: int, end: int) -> None:
    """Delete the characters from `start` to before `end`."""
    del node[_offset(node, start) : _offset(node, end)]


def format_text(node: XmlText, start: int, end: int, attributes: Mapping[str, Any]) -> None:
    """Give formats to the characters from `start` to before `end`; the value None takes one away."""
    node.format(_offset(node, start), _offset(node, end), dict(attributes))


def _offset(node: XmlText, index: int) -> int:
    """Return the offset of the character of this index: pycrdt counts the bytes of UTF-8, and an embedded object as one."""
    offset = 0
    for value, _ in node.diff():
        text = value if isinstance(value, str) else "o"
        offset += len(text[:index].encode())
        index -= min(index, len(text))
    return offset


def _plain(value: Any) -> Any:
    # Every number is a float on the wire.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _change(event: Any) -> NodeChange:
    delta = event.delta
    return NodeChange(event.target, bool(delta), list(event.keys), _steps(event.target, delta))


def _steps(node: Any, delta: Sequence[Mapping[str, Any]]) -> list[Step] | None:
    if not isinstance(node, XmlElement | XmlFragment):
        return None
    steps: list[Step] = [step for entry in delta for step in entry.items()]
    inserted = (node for kind, nodes in steps if kind == "insert" and isinstance(nodes, list) for node in nodes)
    # Other kinds of nodes are not shown, so the counts of the steps would not fit.
    return steps if all(isinstance(node, XmlElement | XmlText) for node in inserted) else None


@contextmanager
def _refusing() -> Iterator[None]:
    """Translate what pycrdt raises about an update to InvalidRequestError."""
    try:
        yield
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"  # of the Rust below; it is not a subclass of Exception
        if not is_panic and not isinstance(error, ValueError | RuntimeError):
            raise
        raise InvalidRequestError("update", "expected a Yjs update of format 1") from None


def _apply_all(doc: pycrdt.Doc[XmlFragment], updates: Sequence[bytes]) -> list[bytes]:
    """Apply updates that may come in any order; return those that wait for missing ones.

    pycrdt keeps early updates too, but does not apply them in every case in which it could.
    """
    waiting: Sequence[bytes] = updates
    while True:
        for update in waiting:
            doc.apply_update(update)
        left = [update for update in waiting if not _is_applied(update, doc.get_state())]
        if len(left) == len(waiting):
            return left
        waiting = left


def _is_applied(update: bytes, state: bytes) -> bool:
    """Return whether a document of this state vector has taken all of an update, which was applied to it."""
    if not _is_known(update, state):
        return False
    clocks = dict(_clocks(state))
    return all(end <= clocks.get(client, 0) for client, _, end in _deletions(pycrdt.get_update(update, state)))


def _is_known(update: bytes, state: bytes) -> bool:
    """Return whether the document of this state vector has all insertions of the update."""
    return pycrdt.get_update(update, state).startswith(b"\x00")


def _clocks(state: bytes) -> Iterator[tuple[int, int]]:
    """Yield each client with the number of its insertions, from a state vector."""
    numbers = _numbers(state)
    for _ in range(next(numbers)):
        yield next(numbers), next(numbers)


def _deletions(update: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the deleted ranges of each client's insertions (from, to before), from an update without insertions."""
    numbers = _numbers(update[1:])
    for _ in range(next(numbers)):
        client = next(numbers)
        for _ in range(next(numbers)):
            start = next(numbers)
            yield client, start, start + next(numbers)


def _numbers(data: bytes) -> Iterator[int]:
    """Yield the numbers, which come in groups of 7 bits, the lowest first; the top bit says that more groups follow."""
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
