"""The CRDT: edits in any order come to the same document, and what others send can do no harm."""

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshhost.documents import crdt
from meshhost.documents.crdt import EMPTY_UPDATE, SharedDocument
from meshhost.errors import InvalidRequestError, LimitExceededError


def edited(count: int = 3, **options: Any) -> tuple[SharedDocument, list[bytes]]:
    """A document after so many edits, and those."""
    updates: list[bytes] = []
    document = SharedDocument(on_update=updates.append, **options)
    for number in range(count):
        append(document, f"e{number}")
    return document, updates


def append(document: SharedDocument, tag: str) -> crdt.XmlElement:
    with document.edit():
        return crdt.insert_element(
            document.root, len(crdt.children_of(document.root)), tag, {"$id": tag}, with_text=True
        )


def tags(document: SharedDocument) -> list[str | None]:
    return [child.tag for child in crdt.children_of(document.root) if isinstance(child, crdt.XmlElement)]


def text_of(node: crdt.ElementNode) -> crdt.XmlText:
    (text,) = crdt.children_of(node)
    assert isinstance(text, crdt.XmlText)
    return text


def test_an_empty_document_is_the_empty_update() -> None:
    assert SharedDocument().state() == EMPTY_UPDATE
    assert SharedDocument().apply_update(EMPTY_UPDATE) is False


def test_editors_are_numbered_as_all_versions_of_the_library_can_read() -> None:
    for _ in range(20):
        assert SharedDocument()._doc.client_id < 2**32


def test_an_update_counts_once() -> None:
    document, updates = edited(1)
    other = SharedDocument()
    assert not other.knows(updates[0])
    assert other.apply_update(updates[0]) is True
    assert other.apply_update(updates[0]) is False
    assert other.knows(updates[0])
    assert other.state() == document.state()


def test_updates_that_come_too_early_wait_and_are_part_of_the_state() -> None:
    document, updates = edited(3)
    late = SharedDocument()
    assert late.apply_update(updates[2]) is True
    assert late.apply_update(updates[2]) is False
    assert late.knows(updates[2])
    assert late.apply_update(updates[1]) is True
    assert tags(late) == []
    copy = SharedDocument()
    copy.reset(late.state())
    for each in (late, copy):
        assert each.apply_update(updates[0]) is True
        assert tags(each) == ["e0", "e1", "e2"]
        assert each.state() == document.state()


def test_only_so_much_may_wait() -> None:
    _, updates = edited(4)
    late = SharedDocument(max_waiting_bytes=len(updates[2]) + len(updates[3]) - 1)
    assert late.apply_update(updates[3])
    with pytest.raises(LimitExceededError, match="wait for others"):
        late.apply_update(updates[2])
    late.apply_update(updates[0])
    late.apply_update(updates[1])
    assert late.apply_update(updates[2])
    assert tags(late) == ["e0", "e1", "e2", "e3"]


def test_a_deletion_that_comes_too_early_waits_too() -> None:
    document, updates = edited(1)
    crdt_element = crdt.children_of(document.root)[0]
    assert isinstance(crdt_element, crdt.XmlElement)
    with document.edit():
        crdt.delete(crdt_element)
    assert document.knows(updates[1])
    late = SharedDocument()
    assert not late.knows(updates[1])
    assert late.apply_update(updates[1]) is True
    late.apply_update(updates[0])
    assert tags(late) == []
    assert late.state() == document.state()


def test_a_deletion_is_known_only_when_it_was_made() -> None:
    document, updates = edited(2)
    behind = SharedDocument()
    behind.reset(document.state())
    last = crdt.children_of(document.root)[1]
    assert isinstance(last, crdt.XmlElement)
    with document.edit():
        crdt.delete(last)
    assert not behind.knows(updates[2])
    assert behind.apply_update(updates[2]) is True
    assert behind.knows(updates[2])


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"hello world", b"\xff" * 40, b"\x00"])
def test_garbage_is_refused_and_changes_nothing(garbage: bytes) -> None:
    document, _ = edited()
    before = document.state()
    for refusing in (document.apply_update, document.knows, document.reset):
        with pytest.raises(InvalidRequestError, match="update: expected a Yjs update"):
            refusing(garbage)
    assert document.state() == before
    append(document, "more")
    assert tags(document) == ["e0", "e1", "e2", "more"]


# Found by flipping bytes: each breaks the library below half-way, or makes it panic.
def test_damaged_updates_never_damage_the_document(capfd: pytest.CaptureFixture[str]) -> None:
    document, updates = edited(3)
    text = text_of(crdt.children_of(document.root)[0])  # type: ignore[arg-type]
    with document.edit():
        crdt.insert_text(text, 0, "hello", {"bold": True})
    good = document.state()
    chance = random.Random(7)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(chance.choice([*updates, good]))
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        victim = SharedDocument()
        victim.reset(good)
        try:
            victim.apply_update(bytes(damaged))
        except InvalidRequestError:
            refused += 1
            assert victim.state() == good
    assert refused > 100
    capfd.readouterr()  # what the panics printed


def test_a_failure_half_way_rebuilds_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[bool] = []
    document, _ = edited(2, on_reset=lambda: resets.append(True))
    _, others = edited(1)
    before = document.state()

    def breaking(update: bytes, seen: object) -> None:
        document._doc.apply_update(update)
        raise RuntimeError("half-way")

    monkeypatch.setattr(document, "_apply", breaking)
    with pytest.raises(InvalidRequestError):
        document.apply_update(others[0])
    assert (document.state(), resets) == (before, [True])


def test_an_error_of_ours_is_not_blamed_on_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    document, updates = edited(1)
    monkeypatch.setattr(document, "_apply", lambda *_: {}["ours"])
    with pytest.raises(KeyError):
        document.apply_update(updates[0])


def test_a_document_is_bounded() -> None:
    document = SharedDocument(max_bytes=2000)
    small, updates = edited(4)
    for update in updates:
        assert document.apply_update(update)
    merged = crdt.merge_updates(edited(60)[1])
    before = document.state()
    with pytest.raises(LimitExceededError, match="at most 2000 bytes"):
        document.apply_update(merged)
    assert document.state() == before
    # What is there already may come again, as clients echo it.
    assert document.apply_update(small.state()) is False


def test_many_small_edits_do_not_count_more_than_what_they_come_to() -> None:
    document = SharedDocument(max_bytes=3000)
    writer, updates = edited(1)
    text = text_of(crdt.children_of(writer.root)[0])  # type: ignore[arg-type]
    for number in range(300):
        with writer.edit():
            crdt.insert_text(text, number, "x", {})
    assert sum(map(len, updates)) > 3000
    for update in updates:
        assert document.apply_update(update)
    assert document.state() == writer.state()


def test_the_record_of_edits_is_folded() -> None:
    document, _ = edited(250)
    assert len(document._recorded) < 100


def test_an_edit_tells_its_update_also_when_the_block_fails() -> None:
    updates: list[bytes] = []
    document = SharedDocument(on_update=updates.append)
    with pytest.raises(KeyError), document.edit():
        {crdt.insert_element(document.root, 0, "a", {}, with_text=False): True}["no such node"]
    other = SharedDocument()
    assert other.apply_update(updates[0])
    assert tags(other) == ["a"]


def test_positions_in_texts_are_characters() -> None:
    document, _ = edited(1)
    text = text_of(crdt.children_of(document.root)[0])  # type: ignore[arg-type]
    with document.edit():
        crdt.insert_text(text, 0, "hé😀l", {})
    with document.edit():
        crdt.insert_text(text, 3, "X", {"bold": True, "size": 3})
    with document.edit():
        crdt.delete_text(text, 1, 2)
    with document.edit():
        crdt.format_text(text, 0, 2, {"italic": True})
    assert crdt.delta_of(text) == [
        {"insert": "h😀", "attributes": {"italic": True}},
        {"insert": "X", "attributes": {"bold": True, "size": 3}},
        {"insert": "l", "attributes": {}},
    ]


def test_what_is_no_text_counts_as_one_character() -> None:
    document, _ = edited(1)
    text = text_of(crdt.children_of(document.root)[0])  # type: ignore[arg-type]
    with document.edit():
        crdt.insert_text(text, 0, "ab", {})
        text.insert_embed(1, {"image": 1})
    assert "".join(run["insert"] for run in crdt.delta_of(text)) == "a\N{OBJECT REPLACEMENT CHARACTER}b"
    with document.edit():
        crdt.delete_text(text, 1, 2)
    assert crdt.delta_of(text) == [{"insert": "ab", "attributes": {}}]


def test_attributes_keep_their_values() -> None:
    document = SharedDocument()
    values = {"s": "é", "i": 3, "f": 1.5, "t": True, "n": None}
    with document.edit():
        element = crdt.insert_element(document.root, 0, "a", values, with_text=False)
    assert crdt.attributes_of(element) == values
    assert type(crdt.attributes_of(element)["i"]) is int
    assert crdt.attributes_of(document.root) == {}
    with document.edit():
        crdt.remove_attribute(element, "s")
    assert "s" not in crdt.attributes_of(element)


# What an editor does: the kind of edit, and numbers that choose where.
EDITS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("iaetdf"), st.integers(0, 99), st.integers(0, 99)), max_size=25
)


def edit(document: SharedDocument, kind: str, a: int, b: int) -> None:
    children = [each for each in crdt.children_of(document.root) if isinstance(each, crdt.XmlElement)]
    if kind == "i" or not children:
        crdt.insert_element(document.root, a % (len(children) + 1), f"e{b}", {"n": b}, with_text=True)
        return
    element = children[a % len(children)]
    text = text_of(element)
    length = sum(len(run["insert"]) for run in crdt.delta_of(text))
    start = b % (length + 1)
    match kind:
        case "a":
            crdt.set_attribute(element, "n", b)
        case "e":
            crdt.delete(element)
        case "t":
            crdt.insert_text(text, start, "aé😀"[b % 3] * (1 + b % 4), {"bold": True} if b % 2 else {})
        case "d":
            crdt.delete_text(text, start, min(length, start + 2))
        case "f":
            crdt.format_text(text, start, min(length, start + 3), {"size": b})


def content(document: SharedDocument) -> list[Any]:
    return [
        (child.tag, crdt.attributes_of(child), crdt.delta_of(text_of(child)))
        for child in crdt.children_of(document.root)
        if isinstance(child, crdt.XmlElement)
    ]


def check_equal(editors: list[SharedDocument]) -> None:
    first, *others = editors
    late = SharedDocument()
    late.reset(first.state())
    for other in (*others, late):
        assert content(other) == content(first)
        assert not other.apply_update(first.state())
        assert other._waiting == []


@settings(deadline=None, max_examples=150)
@given(edits=EDITS, seed=st.integers(0, 2**32), hearing=st.lists(st.integers(0, 5), max_size=25))
def test_editors_converge_in_whatever_order_they_hear_of_each_other(
    edits: list[tuple[int, str, int, int]], seed: int, hearing: list[int]
) -> None:
    chance = random.Random(seed)
    inboxes: list[list[bytes]] = [[], [], []]
    editors: list[SharedDocument] = []

    def tell_others(me: int, update: bytes) -> None:
        for number, inbox in enumerate(inboxes):
            if number != me:
                inbox.append(update)

    editors += [SharedDocument(on_update=partial(tell_others, me)) for me in range(3)]

    def hear(reader: int) -> None:
        if inboxes[reader]:
            editors[reader].apply_update(inboxes[reader].pop(chance.randrange(len(inboxes[reader]))))

    for step, (who, kind, a, b) in enumerate(edits):
        with editors[who].edit():
            edit(editors[who], kind, a, b)
        for _ in range(hearing[step % len(hearing)] if hearing else 0):
            hear(chance.randrange(3))
    for reader, inbox in enumerate(inboxes):
        chance.shuffle(inbox)
        for update in inbox + inbox[:2]:
            editors[reader].apply_update(update)
    check_equal(editors)
