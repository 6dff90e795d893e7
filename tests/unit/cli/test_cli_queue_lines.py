"""The messages of a file: what is a line and what is one message, ids that stay, batches, and lines that are wrong."""

import io
from typing import Any

import pytest

from meshhost.cli.commands.queue import lines
from meshhost.cli.commands.queue.lines import batches, source_of
from meshhost.cli.commands.queue.sending import sent_line
from meshhost.errors import InvalidRequestError
from meshhost.room.services.queues import NewMessage


def read(data: bytes, *, name: str = "x", is_lines: bool = False, **more: Any) -> list[NewMessage] | bytes:
    source = source_of(io.BytesIO(data), name=name, is_lines=is_lines)
    if source.one is not None:
        return source.one
    options = more.pop("options", {})
    return [message for batch in batches(source.lines, options, **more) for message in batch.messages]


def contents(data: bytes, **more: Any) -> list[Any]:
    found = read(data, **more)
    assert isinstance(found, list)
    return [each.message for each in found]


def ids(data: bytes, **more: Any) -> list[str | None]:
    found = read(data, **more)
    assert isinstance(found, list)
    return [each.id for each in found]


def test_each_line_of_a_file_with_several_values_is_a_message() -> None:
    assert contents(b'1\n\n{"a": 2}\r\n"x"') == [1, {"a": 2}, "x"]


@pytest.mark.parametrize("data", [b'{\n  "a": 1\n}\n', b"[1]", b"[1]\n\n", b"nothing"])
def test_a_file_with_one_value_is_one_message(data: bytes) -> None:
    assert isinstance(read(data), bytes)


@pytest.mark.parametrize("how", [{"name": "JOBS.jsonl"}, {"name": "a.ndjson"}, {"is_lines": True}])
def test_a_file_that_is_said_to_have_lines_has_them_also_when_it_is_one(how: dict[str, Any]) -> None:
    assert contents(b"[1]\n", **how) == [[1]]
    assert contents(b"", **how) == []


def test_an_empty_file_is_no_message() -> None:
    assert read(b"\n\n") == b""


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert contents(b"\xef\xbb\xbf1\n2\n") == [1, 2]
    assert ids(b"\xef\xbb\xbf1\n2\n") == ids(b"1\n2\n")


def test_the_same_file_has_the_same_ids_and_each_line_its_own() -> None:
    first = ids(b"1\n1\n1\n")
    assert first == ids(b"1\n1\n1")
    assert len(set(first)) == 3


def test_a_line_that_is_added_or_corrected_changes_no_id_before_it() -> None:
    before = ids(b"1\n2\n3\n")
    assert ids(b"1\n2\n3\n4\n")[:3] == before
    corrected = ids(b"1\n2\n5\n")
    assert (corrected[:2], corrected[2] != before[2]) == (before[:2], True)


def test_a_prefix_names_the_lines_whatever_they_are() -> None:
    assert ids(b"1\n\n2\n", prefix="run7") == ["run7-1", "run7-3"]


def test_options_are_those_of_every_line() -> None:
    found = read(b"1\n2\n", options={"priority": 5, "key": "k"})
    assert isinstance(found, list)
    assert [(each.priority, each.key) for each in found] == [(5, "k"), (5, "k")]


def test_a_line_may_have_options_of_its_own() -> None:
    data = b'{"message": null, "priority": 1, "headers": {"a": "b"}, "id": "mine"}\n{"message": 2, "at": 7}\n'
    first, second = read(data, is_lines=True, with_options=True, options={"priority": 9, "delay": 60})  # type: ignore[misc]
    assert (first.message, first.priority, first.headers, first.id, first.delay) == (None, 1, {"a": "b"}, "mine", 60)
    assert (second.priority, second.at, second.delay) == (9, 7, None)
    assert second.id is not None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2: not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b"\xff", "line 2: not UTF-8 at byte 1"),
        (b"NaN", "line 2: not JSON"),
        (b"[" * 100_000, "line 2: the JSON is nested too deeply"),
    ],
)
def test_a_wrong_line_is_named_after_those_before_it(line: bytes, said: str) -> None:
    found = batches(source_of(io.BytesIO(b"1\n" + line), name="x.jsonl", is_lines=False).lines, {})
    assert next(found).numbers == [1]
    with pytest.raises(InvalidRequestError) as raised:
        next(found)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"1", "expected an object with a message"),
        (b'{"priority": 1}', "expected an object with a message"),
        (b'{"message": 1, "prioritee": 1}', "got 'prioritee'"),
        (b'{"message": 1, "headers": []}', "headers: expected an object"),
    ],
)
def test_wrong_options_of_a_line_are_named(line: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"line 1: .*{said}"):
        read(line, is_lines=True, with_options=True)


def test_batches_are_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH", 3)
    monkeypatch.setattr(lines, "MAX_BATCH_BYTES", 10)
    data = b"1\n2\n3\n4\n" + b'"12345678"\n' * 2 + b'"longer than a batch"\n5\n'
    found = list(batches(source_of(io.BytesIO(data), name="x", is_lines=True).lines, {}))
    assert [batch.numbers for batch in found] == [[1, 2, 3], [4], [5], [6], [7], [8]]
    assert found[-1].end == len(data)


@pytest.mark.parametrize(
    ("count", "before", "said"),
    [
        (3, 0, "3 messages sent to queue q"),
        (3, 2, "1 message sent to queue q; 2 were sent before"),
        (1, 1, "0 messages sent to queue q; 1 was sent before"),
        (3, None, "3 messages sent to queue q, now or before"),
    ],
    ids=["all are new", "some", "none", "a server that does not say"],
)
def test_the_output_says_how_many_were_sent_before(count: int, before: int | None, said: str) -> None:
    assert sent_line("q", count, before) == said
