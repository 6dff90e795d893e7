"""Documents: what is edited here is checked and told, what is edited elsewhere is shown."""

import logging
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshhost.documents import crdt
from meshhost.documents.crdt import SharedDocument
from meshhost.documents.document import Element, MeshDocument, Text
from meshhost.documents.schema import ElementType, MeshSchema, ValueProperty
from meshhost.errors import InvalidRequestError

CONTENT: dict[str, Any] = {
    "page": {
        "blocks": [
            {"section": {"title": "One", "level": 1, "blocks": [{"note": {"body": "in"}}]}},
            {"note": {}},
            {
                "text": {
                    "runs": [
                        {
                            "text": {
                                "delta": [
                                    {"insert": "plain ", "attributes": {}},
                                    {"insert": "bold", "attributes": {"bold": True}},
                                ]
                            }
                        }
                    ]
                }
            },
        ]
    }
}


@pytest.fixture
def updates() -> list[bytes]:
    return []


@pytest.fixture
def document(schema: MeshSchema, updates: list[bytes]) -> MeshDocument:
    return MeshDocument(schema=schema, on_update=updates.append)


def heard(*emitters: Any) -> list[tuple[Any, ...]]:
    """What these tell from now on."""
    events: list[tuple[Any, ...]] = []
    for emitter in emitters:
        for name in ("inserted", "deleted", "updated"):
            emitter.on(name, lambda *fields, name=name: events.append((name, *fields)))
    return events


def text_in(element: Element) -> Text:
    (text,) = element.get_children()
    assert isinstance(text, Text)
    return text


def test_a_document_is_filled_with_its_content_and_gives_it_back(schema: MeshSchema) -> None:
    document = MeshDocument(schema=schema, json=CONTENT)
    assert document.to_json() == CONTENT
    copy = MeshDocument(schema=schema, data=document.get_state())
    assert copy.to_json(include_ids=True) == document.to_json(include_ids=True)
    assert copy.to_json() == CONTENT
    assert copy.schema is schema
    empty: dict[str, Any] = {"page": {}}
    assert MeshDocument(schema=schema, json=empty).to_json() == {"page": {"blocks": []}}


def test_elements_are_added_where_one_says(document: MeshDocument) -> None:
    root = document.root
    last = root.append_child("note", {"body": "last"})
    first = root.insert_child_at(0, "section")
    middle = root.insert_child_after(first, "note", {"body": "middle"})
    assert root.get_children() == [first, middle, last]
    assert root.get_children_by_tag_name("note") == [middle, last]
    assert (first.parent, first.doc, first.tag_name, root.parent) == (root, document, "section", None)
    assert first.schema is document.schema.element("section")
    assert len({first.id, middle.id, last.id}) == 3
    inner = first.append_child("note")
    assert root.get_node_by_id(inner.id or "") is inner
    assert root.get_node_by_id("nobody") is None
    assert root.id is None
    assert "note" in repr(inner)
    assert "page" in repr(document)


def test_attributes_are_set_read_and_removed(document: MeshDocument) -> None:
    section = document.root.append_child("section", {"title": "a"})
    section["level"] = 2
    section.set_attribute("title", "b")
    assert (section["title"], section.get_attribute("level"), section["open"]) == ("b", 2, None)
    assert section.get_attribute("open", "unknown") == "unknown"
    section.remove_attribute("title")
    section.remove_attribute("title")
    assert section["title"] is None


def test_what_is_edited_is_told_as_one_update_each(
    document: MeshDocument, schema: MeshSchema, updates: list[bytes]
) -> None:
    other = MeshDocument(schema=schema)
    section = document.root.append_child("section", {"title": "a", "level": 1})
    section["title"] = "b"
    section.delete()
    assert len(updates) == 3
    events = heard(other)
    for update in updates:
        assert other.apply_update(update)
    assert [event[0] for event in events] == ["inserted", "updated", "deleted"]
    assert events[1][2] == "title"
    assert other.to_json() == document.to_json() == {"page": {"blocks": []}}
    assert not other.apply_update(updates[0])


def test_elements_and_the_document_tell_the_same_events(document: MeshDocument) -> None:
    events, of_document = heard(document.root), heard(document)
    section = document.root.append_child("section")
    of_section = heard(section)
    note = section.append_child("note", {"body": "x"})
    section["title"] = "t"
    section.delete()
    assert events == [("inserted", section), ("deleted", section)]
    assert of_section == [("inserted", note), ("updated", section, "title")]
    assert of_document == [
        ("inserted", section),
        ("inserted", note),
        ("updated", section, "title"),
        ("deleted", section),
    ]


def test_handlers_may_decorate_fail_and_leave(document: MeshDocument, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Element] = []

    @document.on("inserted")
    def failing(element: Element) -> None:
        raise ValueError("mine")

    document.on("inserted", seen.append)
    first = document.root.append_child("note")
    assert seen == [first]
    assert "document event handler raised" in caplog.text
    document.off("inserted", seen.append)
    document.off("inserted", failing)
    document.off("inserted", failing)
    with caplog.at_level(logging.ERROR):
        caplog.clear()
        document.root.append_child("note")
    assert (seen, caplog.text) == ([first], "")


def test_a_handler_may_edit(document: MeshDocument) -> None:
    document.on("inserted", lambda element: element.set_attribute("body", "seen"))
    assert document.root.append_child("note")["body"] == "seen"


def test_texts_are_written_formatted_and_cut(document: MeshDocument, schema: MeshSchema, updates: list[bytes]) -> None:
    text = text_in(document.root.append_child("text"))
    events = heard(text)
    text.insert(0, "hällo 😀")
    text.insert(7, "!", {"bold": True})
    text.format(0, 5, {"italic": True})
    text.delete(5, 2)
    expected = [{"insert": "hällo", "attributes": {"italic": True}}, {"insert": "!", "attributes": {"bold": True}}]
    assert str(text) == "hällo!"
    assert text.delta == expected
    assert events == [("updated", text, "delta")] * 4
    assert text.doc is document
    assert repr(text) == "<Text of 6 characters>"
    other = MeshDocument(schema=schema)
    for update in updates:
        other.apply_update(update)
    assert text_in(other.root.get_children()[0]).delta == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("do", "named"),
    [
        (lambda root: root.append_child("page"), "page: no child of 'page'"),
        (lambda root: root.append_child("note", {"title": "x"}), "title: no property of 'note'"),
        (lambda root: root.append_child("section", {"level": "x"}), "level: expected a value of type number"),
        (lambda root: root.insert_child_at(7, "note"), "index: 'page' has 1 children"),
        (lambda root: root.insert_child_at(-1, "note"), "index: 'page' has 1"),
        (lambda root: root.insert_child_after(root, "note"), "element: expected a child of 'page'"),
        (lambda root: root.set_attribute("x", 1), "page: the root has no attributes"),
        (lambda root: root.delete(), "page: the root has no attributes and cannot be deleted"),
        (lambda root: root.get_children()[0].append_child("note"), "note: no child of 'text'"),
        (lambda root: root.get_children()[0].remove_attribute("no"), "no: no property of 'text'"),
        (lambda root: text_in(root.get_children()[0]).insert(9, "x"), "index: expected a range within the 0 char"),
        (lambda root: text_in(root.get_children()[0]).insert(0, "\ud800"), "text: expected Unicode text"),
        (lambda root: text_in(root.get_children()[0]).insert(0, "x", {"b": []}), "b: expected a format"),
        (lambda root: text_in(root.get_children()[0]).delete(0, 1), "index: expected a range"),
        (lambda root: text_in(root.get_children()[0]).format(0, -1, {}), "index: expected a range within"),
    ],
)
def test_an_edit_that_is_not_allowed_says_why_and_changes_nothing(
    document: MeshDocument, updates: list[bytes], do: Any, named: str
) -> None:
    document.root.append_child("text")
    before = document.get_state()
    with pytest.raises(InvalidRequestError, match=named):
        do(document.root)
    assert document.get_state() == before
    assert len(updates) == 1


@pytest.mark.parametrize(
    ("json", "named"),
    [
        ({}, "json: expected an object with one member"),
        ({"note": {}}, "json: expected one member: the root 'page'"),
        ({"page": []}, "page: expected an object of attributes"),
        ({"page": {"x": 1}}, "x: no property of 'page'"),
        ({"page": {"blocks": {}}}, "page.blocks: expected a list of elements"),
        ({"page": {"blocks": [{"page": {}}]}}, "page: no child of 'page'"),
        ({"page": {"blocks": [{"note": {}}, {"note": {"body": 3}}]}}, "body: expected a value of type string"),
        ({"page": {"blocks": [{"text": {"runs": [{"text": {}}]}}]}}, "text: expected"),
        ({"page": {"blocks": [{"text": {"runs": [{"text": {"delta": [3]}}]}}]}}, "delta: expected runs"),
        ({"page": {"blocks": [{"text": {"runs": [{"text": {"delta": [{"insert": 3}]}}]}}]}}, "text: expected Unicode"),
        (
            {"page": {"blocks": [{"text": {"runs": [{"text": {"delta": [{"insert": "a", "attributes": 3}]}}]}}]}},
            "delta: expected runs",
        ),
    ],
)
def test_a_content_that_does_not_fit_is_refused_as_a_whole(schema: MeshSchema, json: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        MeshDocument(schema=schema, json=json)


def test_a_root_without_attributes_takes_none() -> None:
    schema = MeshSchema(
        root_tag_name="x", elements=[ElementType(tag_name="x", properties=[ValueProperty(name="a", type="string")])]
    )
    with pytest.raises(InvalidRequestError, match="x: the root has no attributes"):
        MeshDocument(schema=schema, json={"x": {"a": "b"}})
    assert MeshDocument(schema=schema, json={"x": {}}).to_json() == {"x": {}}


def test_json_is_appended_as_a_whole_or_not_at_all(document: MeshDocument) -> None:
    added = document.root.append_json(CONTENT["page"]["blocks"][0])
    assert added.to_json() == CONTENT["page"]["blocks"][0]
    with pytest.raises(InvalidRequestError, match="page: no child of 'section'"):
        added.append_json({"section": {"blocks": [{"note": {}}, {"page": {}}]}})
    with pytest.raises(InvalidRequestError, match="note: 'note' has no children"):
        document.root.append_child("note").append_json({"note": {}})
    assert len(document.root.get_children()) == 2


def test_depth_is_bounded(document: MeshDocument) -> None:
    nested: dict[str, Any] = {"section": {}}
    for _ in range(100):
        nested = {"section": {"blocks": [nested]}}
    with pytest.raises(InvalidRequestError, match="at most 100 deep"):
        document.root.append_json(nested)
    element = document.root
    for _ in range(100):
        element = element.append_child("section")
    with pytest.raises(InvalidRequestError, match="at most 100 deep"):
        element.append_child("section")


def test_what_is_deleted_cannot_be_edited(document: MeshDocument) -> None:
    section = document.root.append_child("section", {"title": "gone"})
    text = text_in(section.append_child("text"))
    note = section.append_child("note")
    section.delete()
    for do in (
        lambda: section.append_child("note"),
        lambda: section.set_attribute("title", "x"),
        lambda: section.append_json({"note": {}}),
        section.delete,
        note.delete,
    ):
        with pytest.raises(InvalidRequestError, match="the element is deleted"):
            do()
    with pytest.raises(InvalidRequestError, match="text: is deleted"):
        text.insert(0, "x")
    assert section["title"] == "gone"


def test_a_reset_shows_the_other_state(document: MeshDocument, schema: MeshSchema, updates: list[bytes]) -> None:
    theirs = MeshDocument(schema=schema, json=CONTENT)
    mine = document.root.append_child("note", {"body": "mine"})
    events = heard(document)
    document.reset(theirs.get_state())
    assert document.to_json() == CONTENT
    assert [(name, node.tag_name) for name, node in events] == [
        ("deleted", "note"),
        ("inserted", "section"),
        ("inserted", "note"),
        ("inserted", "text"),
    ]
    with pytest.raises(InvalidRequestError, match="deleted"):
        mine.set_attribute("body", "x")
    document.root.append_child("note")
    assert theirs.apply_update(updates[-1])
    assert theirs.to_json() == document.to_json()


def test_a_broken_update_leaves_a_document_that_works(document: MeshDocument, monkeypatch: pytest.MonkeyPatch) -> None:
    document.root.append_child("note", {"body": "kept"})

    def breaking(update: bytes, seen: object) -> None:
        raise RuntimeError("half-way")

    with monkeypatch.context() as patch:
        patch.setattr(document._shared, "_apply", breaking)
        with pytest.raises(InvalidRequestError):
            document.apply_update(MeshDocument(schema=document.schema).get_state())
    (note,) = document.root.get_children_by_tag_name("note")
    note["body"] = "edited"
    assert document.to_json() == {"page": {"blocks": [{"note": {"body": "edited"}}]}}


def test_elements_of_a_newer_schema_are_shown_but_not_edited(document: MeshDocument) -> None:
    newer: list[bytes] = []
    writer = SharedDocument(on_update=newer.append)
    with writer.edit():
        video = crdt.insert_element(writer.root, 0, "video", {"$id": 3, "url": "x"}, with_text=True)
        crdt.insert_element(video, 0, "note", {"body": "y"}, with_text=False)
    with writer.edit():
        crdt.set_attribute(video, "url", "z")
    for update in newer:
        document.apply_update(update)
    (shown,) = document.root.get_children()
    assert isinstance(shown, Element)
    assert (shown.tag_name, shown["url"], shown.id) == ("video", "z", None)
    assert [type(each) for each in shown.get_children()] == [Element, Text]
    assert shown.get_children_by_tag_name("note")[0]["body"] == "y"
    with pytest.raises(InvalidRequestError, match="url: no property of 'video'"):
        shown["url"] = "mine"
    shown.delete()
    assert document.root.get_children() == []


def test_edits_in_one_block_are_one_update(document: MeshDocument, updates: list[bytes]) -> None:
    note = document.root.append_child("note")
    updates.clear()

    with document.edit():
        note.set_attribute("body", "a")
        note.set_attribute("body", "b")

    assert (note["body"], len(updates)) == ("b", 1)


class _Editor:
    """A document and what it told."""

    def __init__(self, schema: MeshSchema) -> None:
        self.updates: list[bytes] = []
        self.document = MeshDocument(schema=schema, on_update=self.updates.append)

    def edit(self, draw: st.DataObject) -> None:
        sections = [each for each in self.document.root._walk() if each.tag_name in ("page", "section")]
        at = draw.draw(st.sampled_from(sections))
        children = at.get_children()
        index = draw.draw(st.integers(0, len(children)))
        kind = draw.draw(st.sampled_from(["section", "note", "text", "delete", "title"]))
        if kind == "delete":
            for child in children[index : index + 1]:
                assert isinstance(child, Element)
                child.delete()
        elif kind != "title":
            at.insert_child_at(index, kind)
        elif at.tag_name == "section":
            at.set_attribute("title", "new")


@given(draw=st.data())
@settings(max_examples=60)
def test_what_is_shown_after_any_edits_is_what_can_be_read(schema: MeshSchema, draw: st.DataObject) -> None:
    one, other = _Editor(schema), _Editor(schema)
    for _ in range(draw.draw(st.integers(1, 8))):
        editor = draw.draw(st.sampled_from([one, other]))
        editor.edit(draw)
        if draw.draw(st.booleans()):
            _exchange(one, other, draw.draw(st.booleans()))
    _exchange(one, other, False)
    for editor in (one, other):
        again = MeshDocument(schema=schema, data=editor.document.get_state())
        assert editor.document.to_json(include_ids=True) == again.to_json(include_ids=True)
        assert all(editor.document.is_live(each) for each in editor.document.root._walk())
        assert len(editor.document.root.get_children()) == len(again.root.get_children())


def _exchange(one: _Editor, other: _Editor, is_merged: bool) -> None:
    mine, theirs = list(one.updates), list(other.updates)
    one.updates.clear()
    other.updates.clear()
    for editor, updates in ((other, mine), (one, theirs)):
        for update in [crdt.merge_updates(updates)] if is_merged and updates else updates:
            editor.document.apply_update(update)


def test_the_steps_of_a_change_are_followed_without_reading_all_again(
    schema: MeshSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = MeshDocument(schema=schema, json=CONTENT)
    shown = MeshDocument(schema=schema, data=document.get_state())
    read: list[crdt.ElementNode] = []
    children_of = crdt.children_of

    def watched(node: crdt.ElementNode) -> list[crdt.Node]:
        read.append(node)
        return children_of(node)

    monkeypatch.setattr(crdt, "children_of", watched)
    document.root.insert_child_at(1, "note")
    document.root.get_children_by_tag_name("section")[0].delete()
    assert shown.apply_update(document.get_state())
    assert shown.to_json(include_ids=True) == document.to_json(include_ids=True)
    assert [type(node).__name__ for node in read] == ["XmlElement", "XmlElement"]  # the new note, here and there


@pytest.mark.parametrize("steps", [None, [("retain", 1)], [("delete", 1), ("insert", [])]])
def test_children_are_read_where_the_steps_do_not_lead(schema: MeshSchema, steps: list[crdt.Step] | None) -> None:
    document = MeshDocument(schema=schema)
    node = crdt.insert_element(document.root._node, 0, "note", {}, with_text=False)
    document._mirror([crdt.NodeChange(document.root.node, True, [], steps)])
    assert [child._node for child in document.root.get_children()] == [node]


def test_the_steps_of_what_is_neither_element_nor_text_are_not_known() -> None:
    class Event:
        """As of a client that inserts what this library cannot."""

        target = SharedDocument().root
        delta: ClassVar[list[dict[str, Any]]] = [{"insert": [object()]}]
        keys: ClassVar[dict[str, Any]] = {}

    assert crdt._change(Event()).steps is None
