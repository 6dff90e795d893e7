import io
import sys
from pathlib import Path

import pytest
import typer

from meshhost.cli.json_input import parse_json, parse_object, read_text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "a": }', "at line 2, column 7"),
        ("", "at line 1, column 1"),
        ("NaN", "NaN is not a JSON value"),
        ("9" * 5000, "not JSON"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse_json(text, source="--json")

    assert said in caught.value.format_message()
    assert "--json" in caught.value.format_message()


def test_an_object_is_asked_for_where_one_is_needed() -> None:
    assert parse_object('{"a": 1}', source="--message") == {"a": 1}
    with pytest.raises(typer.BadParameter, match="JSON object"):
        parse_object("[1]", source="--message")


def test_a_file_is_read_as_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good").write_bytes(b"\xef\xbb\xbf1")
    (tmp_path / "bad").write_bytes(b"1\xff")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"2")))

    assert read_text(str(tmp_path / "good"), source="--file") == "1"
    assert read_text("-", source="--file") == "2"
    with pytest.raises(typer.BadParameter, match="byte 1"):
        read_text(str(tmp_path / "bad"), source="--file")
