"""`Element` and `Text`: the nodes of a document that programs read and edit, with the names of `meshagent.api.schema_document`.

A node shows a node of the CRDT (`crdt.py`). Reading it costs nothing, since it keeps a copy of the CRDT node's content. An edit
is checked against the schema and written to the CRDT only; the document (`document.py`) then hears from the CRDT which nodes
changed and updates the copies here, by the methods in the section "for its document". So local and remote edits take the same
way, and the copy never differs from the CRDT once an edit has returned. A node that was deleted can be read, but not edited.
Not thread-safe; nothing here waits.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from meshhost.documents import crdt
from meshhost.documents.content import (
    ID_ATTRIBUTE,
    TEXT_TAG,
    check_depth,
    check_element,
    check_formats,
    check_text,
    tag_and_content,
)
from meshhost.documents.emitter import Emitter
from meshhost.documents.schema import ElementType, MeshSchema
from meshhost.errors import InvalidRequestError

__all__ = ["Document", "Element", "Text"]


class Document(Protocol):
    """What nodes need of the `MeshDocument` that they are part of."""

    @property
    def schema(self) -> MeshSchema:
        """The schema that edits are checked against."""
        ...

    @property
    def root(self) -> Element:
        """The element that all others are in."""
        ...

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """Return the whole content."""
        ...

    def edit(self) -> AbstractContextManager[None]:
        """Return a context whose edits become one update."""
        ...

    def shown_for(self, node: crdt.Node | crdt.ElementNode) -> Element | Text | None:
        """Return the element or text that shows a CRDT node; None when the node was deleted."""
        ...


class Text(Emitter):
    """The rich text in an element of tag `text`. Positions count characters.

    Edits raise InvalidRequestError when they do not fit. Event: `updated`, with the text and "delta".
    """

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
    def doc(self) -> Document:
        """The document that it is part of."""
        return self.parent.doc

    @property
    def delta(self) -> crdt.Delta:
        """A copy of its runs, each `{"insert": text, "attributes": formats}`."""
        return [{**run, "attributes": dict(run["attributes"])} for run in self._delta]

    def insert(self, index: int, text: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Insert text with these formats before the character of this index."""
        self._check(index, 0)
        check_text(text)
        check_formats(attributes or {})
        with self.doc.edit():
            crdt.insert_text(self._node, index, text, attributes or {})

    def format(self, start: int, length: int, attributes: Mapping[str, Any]) -> None:
        """Set formats of `length` characters from `start`; the value None removes a format."""
        self._check(start, length)
        check_formats(attributes)
        with self.doc.edit():
            crdt.format_text(self._node, start, start + length, attributes)

    def delete(self, index: int, length: int) -> None:
        """Delete `length` characters from `index`."""
        self._check(index, length)
        with self.doc.edit():
            crdt.delete_text(self._node, index, index + length)

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """Return the text in the form that `append_json` reads."""
        return {"text": {"delta": self.delta}}

    # For its document.

    def reread(self) -> None:
        """Read the content of the CRDT node again."""
        self._delta = crdt.delta_of(self._node)

    @property
    def node(self) -> crdt.XmlText:
        """The CRDT node that it shows."""
        return self._node

    def _check(self, start: int, length: int) -> None:
        if self.doc.shown_for(self._node) is not self:
            raise InvalidRequestError("text", "is deleted")
        if start < 0 or length < 0 or start + length > len(str(self)):
            raise InvalidRequestError("index", f"expected a range within the {len(str(self))} characters of the text")


class Element(Emitter):
    """An element of a document. Edits raise InvalidRequestError when the schema does not allow them.

    Events: `inserted` and `deleted` with a child, `updated` with the element and the name of an attribute.
    """

    def __init__(self, doc: Document, parent: Element | None, node: crdt.ElementNode, schema: ElementType) -> None:
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
    def doc(self) -> Document:
        """The document that it is part of."""
        return self._doc

    @property
    def id(self) -> str | None:
        """The id that names the element in its document; None for the root."""
        value = self.get_attribute(ID_ATTRIBUTE)
        return value if isinstance(value, str) else None

    @property
    def tag_name(self) -> str:
        """The tag, as the schema names it."""
        return self._schema.tag_name

    @property
    def parent(self) -> Element | None:
        """The element that it is in; None for the root."""
        return self._parent

    @property
    def schema(self) -> ElementType:
        """The attributes and children that it may have."""
        return self._schema

    def get_node_by_id(self, id: str) -> Element | None:
        """Return this element or the one in it, at any depth, that has this id; None when there is none."""
        return next((each for each in self._walk() if each.id == id), None)

    def get_attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute, or `default` when it is not set."""
        return self._attributes.get(name, default)

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute that the schema allows."""
        node = self._own_node()
        self._schema.check_attributes({name: value})
        with self._doc.edit():
            crdt.set_attribute(node, name, value)

    def remove_attribute(self, name: str) -> None:
        """Remove an attribute; does nothing when it is not set. Raises InvalidRequestError for a name not in the schema."""
        node = self._own_node()
        self._schema.property(name)
        if name in self._attributes:
            with self._doc.edit():
                crdt.remove_attribute(node, name)

    def get_children(self) -> list[Element | Text]:
        """Return its elements in order, or the one text of an element of tag `text`."""
        return list(self._children)

    def get_children_by_tag_name(self, tag_name: str) -> list[Element]:
        """Return its elements of this tag in order."""
        return [each for each in self._children if isinstance(each, Element) and each.tag_name == tag_name]

    def append_child(self, tag_name: str, attributes: Mapping[str, Any] | None = None) -> Element:
        """Append a new element after the last child and return it."""
        return self.insert_child_at(len(self._children), tag_name, attributes)

    def insert_child_at(self, index: int, tag_name: str, attributes: Mapping[str, Any] | None = None) -> Element:
        """Insert a new element before the one of this index and return it."""
        self._check_live()
        self._schema.check_child(tag_name)
        self._doc.schema.element(tag_name).check_attributes(attributes or {})
        if not 0 <= index <= len(self._children):
            raise InvalidRequestError("index", f"{self.tag_name!r} has {len(self._children)} children")
        check_depth(tag_name, self._depth() + 1)
        own = {ID_ATTRIBUTE: str(uuid.uuid4()), **(attributes or {})}
        with self._doc.edit():
            node = crdt.insert_element(self._node, index, tag_name, own, with_text=tag_name == TEXT_TAG)
        # Leaving the block has updated this tree: the document made an Element for the new node.
        inserted = self._doc.shown_for(node)
        assert isinstance(inserted, Element)
        return inserted

    def insert_child_after(
        self, element: Element, tag_name: str, attributes: Mapping[str, Any] | None = None
    ) -> Element:
        """Insert a new element after this child and return it."""
        if element not in self._children:
            raise InvalidRequestError("element", f"expected a child of {self.tag_name!r}")
        return self.insert_child_at(self._children.index(element) + 1, tag_name, attributes)

    def append_json(self, json: dict[str, Any]) -> Element:
        """Append a new element with its content, `{tag: {attribute: value, children: [...]}}`, and return it.

        Everything is checked first: nothing is added when any part of it is wrong.
        """
        self._check_live()
        self._schema.check_child(tag_and_content(json)[0])
        check_element(self._doc.schema, json, self._depth() + 1)
        return self.add_checked(json)

    def delete(self) -> None:
        """Delete the element with all in it."""
        node = self._own_node()
        with self._doc.edit():
            crdt.delete(node)

    def to_json(self, include_ids: bool = False) -> dict[str, Any]:
        """Return the element with all in it, in the form that `append_json` reads."""
        content = {name: value for name, value in self._attributes.items() if include_ids or name != ID_ATTRIBUTE}
        name = self._schema.child_property_name
        if name is not None:
            content[name] = [each.to_json(include_ids=include_ids) for each in self._children]
        return {self.tag_name: content}

    # For its document.

    @property
    def node(self) -> crdt.ElementNode:
        """The CRDT node that it shows."""
        return self._node

    def reread_attributes(self) -> None:
        """Read the attributes of the CRDT node again."""
        self._attributes = crdt.attributes_of(self._node)

    def replace_children(self, children: list[Element | Text]) -> None:
        """Show these children. The list is kept, not copied: it may be long."""
        self._children = children

    def replace_node(self, node: crdt.ElementNode) -> None:
        """Show another CRDT node from now on, as yet without children. Only the root outlives its node."""
        self._node = node
        self._children = []

    def add_checked(self, json: dict[str, Any]) -> Element:
        """Do as `append_json`, for JSON that `check_element` has accepted."""
        tag_name, content = tag_and_content(json)
        name = self._doc.schema.element(tag_name).child_property_name
        element = self.append_child(tag_name, {key: value for key, value in content.items() if key != name})
        for child in content.get(name, []) if name is not None else []:
            if tag_name == TEXT_TAG:
                element._append_runs(child["text"]["delta"])
            else:
                element.add_checked(child)
        return element

    def _append_runs(self, runs: crdt.Delta) -> None:
        (text,) = (each for each in self._children if isinstance(each, Text))
        for run in runs:
            text.insert(len(str(text)), run["insert"], run.get("attributes"))

    def _walk(self) -> Iterator[Element]:
        yield self
        for child in self._children:
            if isinstance(child, Element):
                yield from child._walk()

    def _depth(self) -> int:
        return 0 if self._parent is None else self._parent._depth() + 1

    def _check_live(self) -> None:
        if self._doc.shown_for(self._node) is not self:
            raise InvalidRequestError(self.tag_name, "the element is deleted")

    def _own_node(self) -> crdt.XmlElement:
        self._check_live()
        if not isinstance(self._node, crdt.XmlElement):
            raise InvalidRequestError(self.tag_name, "the root has no attributes and cannot be deleted")
        return self._node
