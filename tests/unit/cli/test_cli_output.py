import io
import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from meshhost.cli.output import (
    counting,
    last_line,
    one_line,
    print_json,
    print_table,
    printable,
    shown_age,
    shown_time,
    to_json,
    use_safe_streams,
    working,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@given(_json)
def test_json_comes_back_and_holds_nothing_that_a_terminal_obeys(value: Any) -> None:
    text = to_json(value)

    assert json.loads(text) == value
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text)


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text)

    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line


def test_json_suits_an_ascii_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)

    print_json({"at": datetime(2026, 1, 2, tzinfo=UTC), "é": object})

    stream.seek(0)
    assert json.loads(stream.read())["at"] == "2026-01-02T00:00:00+00:00"


def test_half_a_character_is_shown_as_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    use_safe_streams()

    print_json("\ud83d")

    assert json.loads(raw.getvalue()) == "\ud83d"


def test_a_table_in_a_pipe_has_tabs_and_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x\ty", None), ("[red]", 2)], empty="none")

    assert capsys.readouterr().out == "x y\t\n[red]\t2\n"


def test_a_table_on_a_terminal_has_a_heading_and_takes_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)

    print_table(("NAME",), [("[red]x\x1b[2J",)], empty="none")

    assert "NAME" in terminal.getvalue()
    assert "[red]x[2J" in terminal.getvalue()


def test_an_empty_table_is_a_remark(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A",), [], empty="none yet")

    assert capsys.readouterr() == ("", "none yet\n")


@pytest.mark.parametrize("total", [None, 100 * 1024 * 1024])
def test_a_large_copy_shows_its_progress_on_a_terminal(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    with working("[x]big.bin", total=total) as advance:
        advance(10)

    assert "big.bin" in terminal.getvalue()


def test_a_small_copy_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    with working("small", total=10) as advance:
        advance(10)

    assert terminal.getvalue() == ""


def test_the_messages_of_a_file_are_counted_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    with counting("sending to [x]jobs", total=100) as show:
        show(50, 12345)

    assert "sending to [x]jobs" in terminal.getvalue()
    assert "12345" in terminal.getvalue()


def test_elsewhere_nothing_is_shown_of_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("sending", total=None) as show:
        show(1, 1)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("text", "last"), [("", ""), ("\n", ""), ("Traceback\nValueError: x\n", "ValueError: x")])
def test_the_last_line_of_a_traceback_says_what_happened(text: str, last: str) -> None:
    assert last_line(text) == last


def test_times_are_shown_in_utc() -> None:
    assert shown_time(0.0) == "1970-01-01 00:00:00Z"
    assert shown_time(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01 00:00:00Z"
    assert shown_time(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (-1.0, "0s"), (59.0, "59s"), (60.0, "1m"), (7200.0, "2h"), (86400.0 * 3, "3d")]
)
def test_ages_are_shown_in_their_largest_unit(seconds: float | None, text: str) -> None:
    assert shown_age(seconds) == text


def test_a_table_of_a_thousand_rows_is_cheap_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    rows = [(f"{n:012x}", "running", "tenant " * 4, "a room", "日本語" * 6, 0) for n in range(1001)]

    began = time.process_time()
    print_table(("ID", "STATE", "TENANT", "ROOM", "IDENTITY", "RESTARTS"), rows, empty="none")

    assert time.process_time() - began < 1
    lines = re.sub(r"\x1b\[\d*m", "", terminal.getvalue()).splitlines()
    assert max(map(cell_len, lines)) <= 60
    assert len(lines) > 1001


def test_a_name_that_changes_the_writing_direction_is_shown_without_it() -> None:
    assert one_line("paid \u202etxt.exe\u2066 \u200fx") == "paid txt.exe x"


def test_a_text_for_a_terminal_keeps_its_lines_and_orders_nothing() -> None:
    assert printable("a\n\tb\r\x1b]0;x\x07\x9b2J\u202e c") == "a\n\tb]0;x2J c"
