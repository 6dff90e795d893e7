"""The drawing of a trace: a tree of names with bars, within its columns."""

from typing import Any

import pytest

from meshhost.cli.commands.trace.waterfall import as_tree, shown_seconds, waterfall

Json = dict[str, Any]


def span(id: str, parent: str, name: str, begin: float, seconds: float, **more: Any) -> Json:
    return {"id": id, "parent": parent, "name": name, "begin": begin, "seconds": seconds, **more}


SPANS = [
    span("a", "", "send jobs", 100.0, 0.004),
    span("b", "a", "wait jobs", 100.004, 1.0),
    span("c", "a", "lease jobs", 101.0, 3.0, error="ValueError: no such city"),
    span("d", "c", "process jobs", 101.0, 2.99, error="ValueError: no such city"),
    span("e", "d", "tool.call", 102.0, 1.5, attributes={"tool.name": "write_file"}),
]


def test_a_trace_is_drawn_in_eighty_columns() -> None:
    assert waterfall(SPANS, width=80, is_unicode=True) == [
        "send jobs                  █                                            4.0 ms",
        "├ wait jobs                ██████████                                   1.00 s",
        "└ lease jobs                         ████████████████████████████████   3.00 s !",
        "  ! ValueError: no such city",
        "  └ process jobs                     ███████████████████████████████    2.99 s !",
        "    └ tool.call write_file                      ████████████████        1.50 s",
    ]


def test_it_is_drawn_in_plain_characters_where_there_are_no_others() -> None:
    lines = waterfall(SPANS, width=80, is_unicode=False)
    assert all(line.isascii() for line in lines)
    assert [line.split()[0] for line in lines] == ["send", "|-wait", "`-lease", "!", "`-process", "`-tool.call"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider(width: int) -> None:
    deep = [
        span(str(n), str(n - 1) if n else "", "名前" * 30 + "\x1b[31m\n", float(n), 5.0, error="e" * 300)
        for n in range(40)
    ]
    lines = waterfall(deep, width=width, is_unicode=True)
    assert len(lines) == 41
    for line in lines:
        assert sum(2 if character in "名前" else 1 for character in line) <= width
        assert "\x1b" not in line


def test_spans_that_hang_together_in_no_way_are_all_drawn() -> None:
    odd = [span(own, above, own, 1.0, 0.0) for own, above in (("a", "b"), ("b", "a"), ("c", "gone"), ("d", "d"))]
    assert sorted(found["name"] for _, found in as_tree(odd)) == ["a", "b", "c", "d"]
    assert waterfall([], width=80, is_unicode=True) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 ms"),
        (0.0042, "4.2 ms"),
        (0.42, "420 ms"),
        (4.2, "4.20 s"),
        (99.9, "99.90 s"),
        (420, "7.0 min"),
        (42_000, "11.7 h"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert shown_seconds(seconds) == text


def test_thousands_of_spans_below_each_other_are_drawn() -> None:
    deep = [span(str(n), str(n - 1), "n", 1.0, 1.0) for n in range(5_000)]
    assert len(waterfall(deep, width=80, is_unicode=True)) == 5_000
