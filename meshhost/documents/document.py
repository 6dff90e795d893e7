"""`MeshDocument`: a document as a tree of elements, with the names of `meshagent.api.schema_document`.

Programs read and edit the tree; the room client feeds it the updates of others and sends its own. The tree mirrors the CRDT
(`crdt.py`): after any edit, local or remote, the CRDT reports which nodes changed, and those are read again. So there is one
way from an edit to the tree, and handlers of events see the same for every editor. Local edits are checked against the
schema before they are made; what others wrote is shown as it is, valid or not. For one thread; nothing here waits.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from meshhost.documents import crdt
from meshhost.documents.schema import ElementType, MeshSchema, is_scalar, is_unicode
from meshhost.errors import InvalidRequestError

__all__ = ["Element", "MeshDocument", "Text"]

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

_ID = "$id"
_TEXT_TAG = "text"
# Code that walks a tree by recursion must not reach Python's recursion limit.
_MAX_DEPTH = 100


class _Emitter:
    """Named events. Handlers are plain functions; an error of one is logged, and the others are called all the same."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Callable[..., Any]]] = {}

    def on(self, event_name: str, func: F | None = None) -> Any:
        """Call `func` at every such event; without one, a decorator for it."""
        if func is None:
            return lambda decorated: self.on(event_name, decorated)
        self._handlers.setdefault(event_name, []).append(func)
        return func

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`; unknown handlers are ignored."""
        handlers = self._handlers.get(event_name, [])
        if func in handlers:
            handlers.remove(func)

    def emit(self, event_name: str, *fields: Any) -> None:
        """Call the handlers in the order they were added."""
        for handler in tuple(self._handlers.get(event_name, ())):
            try:
                handler(*fields)
            except Exception:
                logger.exception("document event handler raised", extra={"event": event_name})


# The emitter, the event's name, its fields.
_Event: TypeAlias = tuple[_Emitter, str, tuple[Any, ...]]


class Text(_Emitter):
    """The rich text in an element of tag `text`. Positions count characters. Event: `updated`, with the text and "delta"."""

    def __init__(self, parent: Element, node: crdt.XmlText) -> None:
        super().__init__()
        self.parent = parent
        self._node = node
        self._delta = crdt.delta_of(node)

    def __repr__(self) -> str:
        return f"<Text of {len(str(self))} characters>"

    def __str__(self) -> str:
        return "".join(run["insert"] for run in self._delta)

    @property
    def doc(self) -> MeshDocument:
        """The document it is part of."""
        return self.parent.doc

    @property
    def delta(self) -> crdt.Delta:
        """Its runs, each `{"insert": text, "attributes": formats}`."""
        return [{**run, "attributes": dict(run["attributes"])} for run in self._delta]

    def insert(self, index: int, text: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Insert text, with formats, before the character of this index."""
        self._check(index, 0)
        _check_text(text)
        _check_formats(attributes or {})
        with self.doc.edit():
            crdt.insert_text(self._node, index, text, attributes or {})

    def format(self, start: int, length: int, attributes: Mapping[str, Any]) -> None:
        """Give formats to characters; the value None takes one away."""
        self._check(start, length)
        _check_formats(attributes)
        with self.doc.edit():
            crdt.format_text(self._node, start, start + length, attributes)

    def delete(self, index: int, length: int) -> None:
        """Delete characters."""
        self._check(index, length)
        with self.doc.edit():
            crdt.delete_text(self._node, index, index + length)

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """The text as `append_json` reads it."""
        return {"text": {"delta": self.delta}}

    def _check(self, start: int, length: int) -> None:
        if not self.doc.is_live(self):
            raise InvalidRequestError("text", "is deleted")
        if start < 0 or length < 0 or start + length > len(str(self)):
            raise InvalidRequestError("index", f"expected a range within the {len(str(self))} characters of the text")


class Element(_Emitter):
    """An element of a document. Edits raise InvalidRequestError when the schema does not allow them.

    Events: `inserted` and `deleted` with a child, `updated` with the element and the name of an attribute.
    """

    def __init__(self, doc: MeshDocument, parent: Element | None, node: crdt.ElementNode, schema: ElementType) -> None:
        super().__init__()
        self._doc = doc
        self._parent = parent
        self._node = node
        self._schema = schema
        self._attributes = crdt.attributes_of(node)
        self._children: list[Element | Text] = []

    def __repr__(self) -> str:
        return f"<Element {self.tag_name!r} id={self.id!r} children={len(self._children)}>"

    def __getitem__(self, name: str) -> Any:
        return self.get_attribute(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_attribute(name, value)

    @property
    def doc(self) -> MeshDocument:
        """The document it is part of."""
        return self._doc

    @property
    def id(self) -> str | None:
        """What names the element in its document; the root has none."""
        value = self.get_attribute(_ID)
        return value if isinstance(value, str) else None

    @property
    def tag_name(self) -> str:
        """Its tag."""
        return self._schema.tag_name

    @property
    def parent(self) -> Element | None:
        """The element it is in; None for the root."""
        return self._parent

    @property
    def schema(self) -> ElementType:
        """What it may have."""
        return self._schema

    def get_node_by_id(self, id: str) -> Element | None:
        """This element or one in it, by its id."""
        return next((each for each in self._walk() if each.id == id), None)

    def get_attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return self._attributes.get(name, default)

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute."""
        node = self._own_node()
        self._schema.check_attributes({name: value})
        with self._doc.edit():
            crdt.set_attribute(node, name, value)

    def remove_attribute(self, name: str) -> None:
        """Remove an attribute; one that is not there is ignored."""
        node = self._own_node()
        self._schema.property(name)
        if name in self._attributes:
            with self._doc.edit():
                crdt.remove_attribute(node, name)

    def get_children(self) -> list[Element | Text]:
        """Its elements, or the one text of an element of tag `text`."""
        return list(self._children)

    def get_children_by_tag_name(self, tag_name: str) -> list[Element]:
        """Its elements of this tag."""
        return [each for each in self._children if isinstance(each, Element) and each.tag_name == tag_name]

    def append_child(self, tag_name: str, attributes: Mapping[str, Any] | None = None) -> Element:
        """Append and return a new element."""
        return self.insert_child_at(len(self._children), tag_name, attributes)

    def insert_child_at(self, index: int, tag_name: str, attributes: Mapping[str, Any] | None = None) -> Element:
        """Insert a new element before the one of this index and return it."""
        self._check_live()
        self._schema.check_child(tag_name)
        self._doc.schema.element(tag_name).check_attributes(attributes or {})
        if not 0 <= index <= len(self._children):
            raise InvalidRequestError("index", f"{self.tag_name!r} has {len(self._children)} children")
        if self._depth() >= _MAX_DEPTH:
            raise InvalidRequestError(tag_name, f"elements are at most {_MAX_DEPTH} deep in each other")
        own = {_ID: str(uuid.uuid4()), **(attributes or {})}
        with self._doc.edit():
            node = crdt.insert_element(self._node, index, tag_name, own, with_text=tag_name == _TEXT_TAG)
        return self._doc.element_of(node)

    def insert_child_after(
        self, element: Element, tag_name: str, attributes: Mapping[str, Any] | None = None
    ) -> Element:
        """Insert a new element after this child and return it."""
        if element not in self._children:
            raise InvalidRequestError("element", f"expected a child of {self.tag_name!r}")
        return self.insert_child_at(self._children.index(element) + 1, tag_name, attributes)

    def append_json(self, json: dict[str, Any]) -> Element:
        """Append and return a new element with its content: `{tag: {attribute: value, children: [...]}}`.

        Nothing is added when any of it is wrong.
        """
        self._check_live()
        self._schema.check_child(_tag_and_content(json)[0])
        self._doc.check_json(json, self._depth() + 1)
        return self._add(json)

    def _add(self, json: dict[str, Any]) -> Element:
        tag_name, content = _tag_and_content(json)
        name = self._doc.schema.element(tag_name).child_property_name
        element = self.append_child(tag_name, {key: value for key, value in content.items() if key != name})
        for child in content.get(name, []) if name is not None else []:
            if tag_name == _TEXT_TAG:
                element._append_runs(child["text"]["delta"])
            else:
                element._add(child)
        return element

    def _append_runs(self, runs: crdt.Delta) -> None:
        (text,) = (each for each in self._children if isinstance(each, Text))
        for run in runs:
            text.insert(len(str(text)), run["insert"], run.get("attributes"))

    def delete(self) -> None:
        """Delete the element and all in it."""
        node = self._own_node()
        with self._doc.edit():
            crdt.delete(node)

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """The element with all in it, as `append_json` reads it."""
        content = {name: value for name, value in self._attributes.items() if include_ids or name != _ID}
        name = self._schema.child_property_name
        if name is not None:
            content[name] = [each.to_json(include_ids=include_ids) for each in self._children]
        return {self.tag_name: content}

    def _walk(self) -> Iterator[Element]:
        yield self
        for child in self._children:
            if isinstance(child, Element):
                yield from child._walk()

    def _depth(self) -> int:
        return 0 if self._parent is None else self._parent._depth() + 1

    def _check_live(self) -> None:
        if not self._doc.is_live(self):
            raise InvalidRequestError(self.tag_name, "the element is deleted")

    def _own_node(self) -> crdt.XmlElement:
        self._check_live()
        if not isinstance(self._node, crdt.XmlElement):
            raise InvalidRequestError(self.tag_name, "the root has no attributes and cannot be deleted")
        return self._node


class MeshDocument(_Emitter):
    """A document of a schema, with the initial content `json`, or with what the update `data` says.

    `on_update` gets every local edit as an update. Raises InvalidRequestError for a content that does not fit.
    Events: `inserted` and `deleted` with a node, `updated` with a node and the name of an attribute ("delta" for a text).
    """

    def __init__(
        self,
        *,
        schema: MeshSchema,
        json: dict[str, Any] | None = None,
        data: bytes | None = None,
        on_update: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._schema = schema
        self._shared = crdt.SharedDocument(on_update=on_update, on_changes=self._mirror, on_reset=self._mirror_all)
        self._nodes: dict[Any, Element | Text] = {}
        self._root = Element(self, None, self._shared.root, schema.root)
        self._nodes[self._shared.root] = self._root
        if data is not None:
            self.apply_update(data)
        if json is not None:
            self._fill(json)

    def __repr__(self) -> str:
        return f"<MeshDocument of {self._root.tag_name!r} nodes={len(self._nodes)}>"

    @property
    def schema(self) -> MeshSchema:
        """What its elements may be."""
        return self._schema

    @property
    def root(self) -> Element:
        """The element that all others are in."""
        return self._root

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """All of it: `{tag: {children: [...]}}`."""
        return self._root.to_json(include_ids=include_ids)

    def apply_update(self, update: bytes) -> bool:
        """Apply the edits of another; return whether anything was new. Raises InvalidRequestError."""
        return self._shared.apply_update(update)

    def get_state(self) -> bytes:
        """Return all of it as one update."""
        return self._shared.state()

    def reset(self, state: bytes) -> None:
        """Replace the content by this state; local edits that are not in it are lost. Raises InvalidRequestError."""
        self._shared.reset(state)

    # For its elements and texts.

    def edit(self) -> AbstractContextManager[None]:
        """Return a context whose edits are one update."""
        return self._shared.edit()

    def is_live(self, node: Element | Text) -> bool:
        """Whether the node is part of the document, and not deleted."""
        return self._nodes.get(node._node) is node

    def element_of(self, node: crdt.ElementNode) -> Element:
        """The element that shows this node."""
        found = self._nodes[node]
        assert isinstance(found, Element)
        return found

    def check_json(self, json: Any, depth: int) -> None:
        """Raise InvalidRequestError when this cannot be an element of the document at this depth."""
        tag_name, content = _tag_and_content(json)
        element = self._schema.element(tag_name)
        name = element.child_property_name
        element.check_attributes({key: value for key, value in content.items() if key != name})
        children = content.get(name, []) if name is not None else []
        if not isinstance(children, list):
            raise InvalidRequestError(f"{tag_name}.{name}", "expected a list of elements")
        if depth > _MAX_DEPTH:
            raise InvalidRequestError(tag_name, f"elements are at most {_MAX_DEPTH} deep in each other")
        for child in children:
            if tag_name == _TEXT_TAG:
                _check_runs(child)
            else:
                element.check_child(_tag_and_content(child)[0])
                self.check_json(child, depth + 1)

    def _fill(self, json: dict[str, Any]) -> None:
        root = self._root
        if _tag_and_content(json)[0] != root.tag_name:
            raise InvalidRequestError("json", f"expected one member: the root {root.tag_name!r}")
        self.check_json(json, 0)
        content = json[root.tag_name]
        name = root.schema.child_property_name
        if set(content) - {name}:
            raise InvalidRequestError(root.tag_name, "the root has no attributes")
        for child in content.get(name, []):
            root._add(child)

    def _mirror(self, changes: Sequence[crdt.NodeChange]) -> None:
        """Read again what changed, then emit the events: handlers see the whole change."""
        events: list[_Event] = []
        # Looked up before any change: elements that are created on the way are read in their final state already.
        all_shown = [self._nodes.get(change.node) for change in changes]
        times = Counter(map(id, all_shown))
        for change, shown in zip(changes, all_shown, strict=True):
            if isinstance(shown, Text):
                shown._delta = crdt.delta_of(shown._node)
                events.append((shown, "updated", (shown, "delta")))
            elif shown is not None:  # otherwise it is in a part that is new or deleted
                shown._attributes = crdt.attributes_of(shown._node)
                events += [(shown, "updated", (shown, name)) for name in change.attributes]
                if change.content:
                    # Of several changes of one element only the last leads to what can be read now.
                    steps = change.steps if times[id(shown)] == 1 else None
                    events += self._mirror_steps(shown, steps)
        self._tell(events)

    def _mirror_all(self) -> None:
        root = self._root
        self._nodes = {self._shared.root: root}
        root._node = self._shared.root
        gone, root._children = root._children, []
        events: list[_Event] = [(root, "deleted", (child,)) for child in gone]
        self._tell(events + self._mirror_children(root))

    def _mirror_steps(self, element: Element, steps: Sequence[crdt.Step] | None) -> list[_Event]:
        """Apply the steps if they lead to the present children: reading all children for each new one would be slow."""
        before, index = element._children, 0
        plan: list[tuple[list[Element | Text], list[crdt.Node]]] = []
        deleted: list[Element | Text] = []
        for kind, value in steps or ():
            if isinstance(value, list):
                plan.append(([], value))
                continue
            passed = before[index : index + value]
            index += value
            if kind == "delete":
                deleted += passed
            else:
                plan.append((passed, []))
        plan.append((before[index:], []))
        if steps is None or sum(len(kept) + len(new) for kept, new in plan) != crdt.child_count(element._node):
            return self._mirror_children(element)
        for child in deleted:
            self._forget(child)
        inserted: list[Element | Text] = []
        element._children = []
        for kept, new in plan:
            shown = [self._show(element, node) for node in new]
            inserted += shown
            element._children += kept + shown
        events: list[_Event] = [(element, "deleted", (child,)) for child in deleted]
        return events + [(element, "inserted", (child,)) for child in inserted]

    def _mirror_children(self, element: Element) -> list[_Event]:
        before = element._children
        nodes = crdt.children_of(element._node)
        # Once per node: hashing and comparing pycrdt nodes is slow, and there may be many.
        known = [self._nodes.get(node) for node in nodes]
        element._children = [shown or self._show(element, node) for node, shown in zip(nodes, known, strict=True)]
        kept = set(known)
        deleted = [child for child in before if child not in kept]
        for child in deleted:
            self._forget(child)
        events: list[_Event] = [(element, "deleted", (child,)) for child in deleted]
        events += [(element, "inserted", (child,)) for child in element._children if child not in kept]
        return events

    def _show(self, parent: Element, node: crdt.Node) -> Element | Text:
        shown: Element | Text
        if isinstance(node, crdt.XmlText):
            shown = Text(parent, node)
        else:
            shown = Element(self, parent, node, self._type_of(node))
            shown._children = [self._show(shown, child) for child in crdt.children_of(node)]
        self._nodes[node] = shown
        return shown

    def _type_of(self, node: crdt.XmlElement) -> ElementType:
        # Another client may know a newer schema: its elements are shown, and cannot be edited here.
        tag = node.tag or ""
        return self._schema.elements_by_tag_name.get(tag) or ElementType(tag_name=tag, properties=[])

    def _forget(self, shown: Element | Text) -> None:
        self._nodes.pop(shown._node, None)
        for child in shown.get_children() if isinstance(shown, Element) else ():
            self._forget(child)

    def _tell(self, events: Sequence[_Event]) -> None:
        for emitter, name, fields in events:
            emitter.emit(name, *fields)
            self.emit(name, *fields)


def _tag_and_content(json: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(json, dict) or len(json) != 1:
        raise InvalidRequestError("json", "expected an object with one member: the tag of the element")
    ((tag_name, content),) = json.items()
    if not isinstance(content, dict):
        raise InvalidRequestError(str(tag_name), "expected an object of attributes and children")
    return tag_name, content


def _check_runs(json: Any) -> None:
    tag_name, content = _tag_and_content(json)
    runs = content.get("delta")
    if tag_name != "text" or not isinstance(runs, list):
        raise InvalidRequestError("text", 'expected {"text": {"delta": [...]}}')
    for run in runs:
        if not isinstance(run, dict) or not isinstance(run.get("attributes") or {}, dict):
            raise InvalidRequestError("delta", 'expected runs {"insert": text, "attributes": formats}')
        _check_text(run.get("insert"))
        _check_formats(run.get("attributes") or {})


def _check_text(text: Any) -> None:
    if not is_unicode(text):
        raise InvalidRequestError("text", "expected Unicode text, without lone surrogates")


def _check_formats(formats: Mapping[str, Any]) -> None:
    for name, value in formats.items():
        if not is_unicode(name) or not is_scalar(value):
            raise InvalidRequestError(str(name), "expected a format that is a JSON scalar")
