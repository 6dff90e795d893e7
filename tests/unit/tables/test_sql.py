"""Filters in SQL: what stands in double quotes is a text, and what cannot be meant is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.tables.contract import IndexKind, TableIndex, check_column, check_table_name
from meshhost.tables.sql import MAX_SQL_CHARS, prepare, text_literal


@pytest.mark.parametrize(
    ("written", "prepared"),
    [
        ('id = "x"', "id = 'x'"),
        ('id = "it\'s" AND n = 3', "id = 'it''s' AND n = 3"),
        (r'id = "a \"b\" \u00e9\n"', "id = 'a \"b\" é\n'"),
        ('id = "a ""b"""', "id = 'a \"b\"'"),
        ("id = 'a \"b\" (' OR `odd name` > 3", "id = 'a \"b\" (' OR `odd name` > 3"),
        ("id = 'it''s' AND (n IN (1, 2))", "id = 'it''s' AND (n IN (1, 2))"),
        ('id = ""', "id = ''"),
        ("n - -1 > 0", "n - -1 > 0"),
    ],
)
def test_a_text_in_double_quotes_becomes_one_in_single_quotes(written: str, prepared: str) -> None:
    assert prepare(written, "where") == prepared


@given(st.text())
def test_any_value_of_a_dictionary_arrives_as_it_is(value: str) -> None:
    prepared = prepare(f"id = {json.dumps(value)}", "where")
    assert prepared == f"id = {text_literal(value)}"
    # The literal ends where the text does.
    assert prepared[5:].replace("''", "").count("'") in {0, 2}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("  ", "expected an expression"),
        ("x" * (MAX_SQL_CHARS + 1), "at most 16384 characters"),
        ("id = 'x", "closing '"),
        ('id = "x', 'closing "'),
        ("`id = 1", "closing `"),
        ("n = 1 -- and the rest", "no comments"),
        ("n /* so */ = 1", "no comments"),
        ("(" * 41 + "n" + ")" * 41, "at most 40 deep"),
        ("n = 1\x00", "no NUL"),
    ],
)
def test_what_cannot_be_meant_is_refused(written: str, expected: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"where: .*{expected}"):
        prepare(written, "where")


@pytest.mark.parametrize("name", ["t", "T_1", "0", "a.b-c", "x" * 128])
def test_a_name_of_a_table(name: str) -> None:
    assert check_table_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".t", "-t", "a/b", "a\\b", "a b", "ä", "x" * 129, "a\n"])
def test_no_name_of_a_table(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="table: expected 1-128"):
        check_table_name(name)


@pytest.mark.parametrize("name", ["n", "größe", "two words", "_private"])
def test_a_name_of_a_column(name: str) -> None:
    assert check_column(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a`b", 'a"b', "a'b", "a\\b", "a\nb", "_distance", "_rowid", "x" * 129])
def test_no_name_of_a_column(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="column: expected a name"):
        check_column(name)


@pytest.mark.parametrize(
    ("type", "kind"),
    [("FTS", "full_text"), ("BTree", "scalar"), ("Bitmap", "scalar"), ("IvfPq", "vector"), ("IvfFlat", "vector")],
)
def test_what_an_index_is_for(type: str, kind: str) -> None:
    assert TableIndex("name", ["column"], type).kind == IndexKind(kind)
