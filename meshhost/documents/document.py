"""`MeshDocument`: a document as a tree of elements, with the names of `meshagent.api.schema_document`.

Programs read and edit the tree (`elements.py`); the room client feeds it the updates of others and sends its own. The tree
mirrors the CRDT (`crdt.py`): after any edit, local or remote, the CRDT reports which nodes changed, and only those are read
again. So there is one way from an edit to the tree, and handlers of events see the same for every editor. Local edits are
checked against the schema before they are made; what others wrote is shown as it is, valid or not.

Invariant: `_nodes` maps each live CRDT node to the one element or text that shows it, and nothing else. Events are emitted
after the whole change is in the tree. For one thread; nothing here waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from meshhost.documents import crdt
from meshhost.documents.content import check_element, tag_and_content
from meshhost.documents.elements import Element, Text
from meshhost.documents.emitter import Emitter
from meshhost.documents.schema import ElementType, MeshSchema
from meshhost.errors import InvalidRequestError

__all__ = ["Element", "MeshDocument", "Text"]

# The emitter, the event's name, its fields.
_Event: TypeAlias = tuple[Emitter, str, tuple[Any, ...]]


class MeshDocument(Emitter):
    """A document of a schema, with the initial content `json`, or with that of the update `data`.

    `on_update` is called with each local edit as an update. Raises InvalidRequestError for content that does not fit.
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
        """The schema that edits are checked against."""
        return self._schema

    @property
    def root(self) -> Element:
        """The element that all others are in."""
        return self._root

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """Return the whole content: `{tag: {children: [...]}}`, where the schema names the member with the children."""
        return self._root.to_json(include_ids=include_ids)

    def apply_update(self, update: bytes) -> bool:
        """Apply an update of another editor; return whether it held anything new. Raises InvalidRequestError."""
        return self._shared.apply_update(update)

    def get_state(self) -> bytes:
        """Return the whole content as one update."""
        return self._shared.state()

    def reset(self, state: bytes) -> None:
        """Replace the content by this state; local edits that are not in it are lost. Raises InvalidRequestError."""
        self._shared.reset(state)

    def is_live(self, node: Element | Text) -> bool:
        """Return whether the node is part of the document and not deleted."""
        return self._nodes.get(node.node) is node

    # For its elements and texts.

    def edit(self) -> AbstractContextManager[None]:
        """Return a context whose edits become one update. When it is left, the tree shows them."""
        return self._shared.edit()

    def shown_for(self, node: crdt.Node | crdt.ElementNode) -> Element | Text | None:
        """Return the element or text that shows a CRDT node; None when the node was deleted."""
        return self._nodes.get(node)

    def _fill(self, json: dict[str, Any]) -> None:
        root = self._root
        if tag_and_content(json)[0] != root.tag_name:
            raise InvalidRequestError("json", f"expected one member: the root {root.tag_name!r}")
        check_element(self._schema, json, 0)
        content = json[root.tag_name]
        name = root.schema.child_property_name
        if set(content) - {name}:
            raise InvalidRequestError(root.tag_name, "the root has no attributes")
        for child in content.get(name, []):
            root.add_checked(child)

    def _mirror(self, changes: Sequence[crdt.NodeChange]) -> None:
        """Read again what changed, then emit the events: handlers see the whole change."""
        events: list[_Event] = []
        # Looked up before any change: elements that are created on the way are read in their final state already.
        all_shown = [self._nodes.get(change.node) for change in changes]
        times = Counter(map(id, all_shown))
        for change, shown in zip(changes, all_shown, strict=True):
            if isinstance(shown, Text):
                shown.reread()
                events.append((shown, "updated", (shown, "delta")))
            elif shown is not None:  # otherwise it is in a part that is new or deleted
                shown.reread_attributes()
                events += [(shown, "updated", (shown, name)) for name in change.attributes]
                if change.content:
                    # Of several changes of one element only the last leads to what can be read now.
                    steps = change.steps if times[id(shown)] == 1 else None
                    events += self._mirror_steps(shown, steps)
        self._emit_all(events)

    def _mirror_all(self) -> None:
        """Show the new nodes of a CRDT that was made anew: all nodes but the root's are replaced."""
        root = self._root
        gone = root.get_children()
        root.replace_node(self._shared.root)
        self._nodes = {self._shared.root: root}
        events: list[_Event] = [(root, "deleted", (child,)) for child in gone]
        self._emit_all(events + self._mirror_children(root))

    def _mirror_steps(self, element: Element, steps: Sequence[crdt.Step] | None) -> list[_Event]:
        """Apply the steps if they lead to the present children: reading all children for each new one would be slow.

        Otherwise, or without steps, all children are read.
        """
        before, index = element.get_children(), 0
        # The new list of children in order: children that stay, then CRDT nodes that are new.
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
        if steps is None or sum(len(kept) + len(new) for kept, new in plan) != crdt.child_count(element.node):
            return self._mirror_children(element)
        for child in deleted:
            self._forget(child)
        inserted: list[Element | Text] = []
        children: list[Element | Text] = []
        for kept, new in plan:
            shown = [self._show(element, node) for node in new]
            inserted += shown
            children += kept + shown
        element.replace_children(children)
        events: list[_Event] = [(element, "deleted", (child,)) for child in deleted]
        return events + [(element, "inserted", (child,)) for child in inserted]

    def _mirror_children(self, element: Element) -> list[_Event]:
        before = element.get_children()
        nodes = crdt.children_of(element.node)
        # Once per node: hashing and comparing pycrdt nodes is slow, and there may be many.
        known = [self._nodes.get(node) for node in nodes]
        children = [shown or self._show(element, node) for node, shown in zip(nodes, known, strict=True)]
        element.replace_children(children)
        kept = set(known)
        deleted = [child for child in before if child not in kept]
        for child in deleted:
            self._forget(child)
        events: list[_Event] = [(element, "deleted", (child,)) for child in deleted]
        events += [(element, "inserted", (child,)) for child in children if child not in kept]
        return events

    def _show(self, parent: Element, node: crdt.Node) -> Element | Text:
        shown: Element | Text
        if isinstance(node, crdt.XmlText):
            shown = Text(parent, node)
        else:
            shown = Element(self, parent, node, self._type_of(node))
            shown.replace_children([self._show(shown, child) for child in crdt.children_of(node)])
        self._nodes[node] = shown
        return shown

    def _type_of(self, node: crdt.XmlElement) -> ElementType:
        # Another client may know a newer schema: its elements are shown, and cannot be edited here.
        tag = node.tag or ""
        return self._schema.elements_by_tag_name.get(tag) or ElementType(tag_name=tag, properties=[])

    def _forget(self, shown: Element | Text) -> None:
        self._nodes.pop(shown.node, None)
        for child in shown.get_children() if isinstance(shown, Element) else ():
            self._forget(child)

    def _emit_all(self, events: Sequence[_Event]) -> None:
        for emitter, name, fields in events:
            emitter.emit(name, *fields)
            self.emit(name, *fields)
