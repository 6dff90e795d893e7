"""Names of tools: every model accepts them, and no two tools share one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.protocol.tool_names import MAX_NAME, acceptable_name, changed_name, offered_name

WORDS = st.text(alphabet="ab_-.é ", max_size=40)


def is_acceptable(name: str) -> bool:
    return re.fullmatch(f"[A-Za-z0-9_-]{{1,{MAX_NAME}}}", name) is not None


@pytest.mark.parametrize(
    ("toolkit", "tool", "name"),
    [
        ("storage", "read_file", "storage__read_file"),
        ("a", "_b", "a___b"),
        ("a", "b__c", "a__b__c"),
        ("a-b", "c", "a-b__c"),
    ],
)
def test_plain_names_stay(toolkit: str, tool: str, name: str) -> None:
    assert offered_name(toolkit, tool) == name


@pytest.mark.parametrize(
    ("toolkit", "tool"), [("a_", "b"), ("a__b", "c"), ("a", "b c"), ("ä", "b"), ("a" * 40, "b" * 40)]
)
def test_others_end_in_what_keeps_them_apart(toolkit: str, tool: str) -> None:
    assert re.fullmatch(r".*_[0-9a-f]{8}", offered_name(toolkit, tool))
    assert offered_name(toolkit, tool) == changed_name(toolkit, tool)


@given(WORDS, WORDS, WORDS, WORDS)
def test_two_tools_never_share_a_name(toolkit: str, tool: str, other_toolkit: str, other_tool: str) -> None:
    first, second = offered_name(toolkit, tool), offered_name(other_toolkit, other_tool)
    assert is_acceptable(first)
    assert (first == second) == ((toolkit, tool) == (other_toolkit, other_tool))


@given(WORDS, WORDS)
def test_nor_two_of_one_toolkit(tool: str, other: str) -> None:
    assert is_acceptable(acceptable_name(tool))
    assert (acceptable_name(tool) == acceptable_name(other)) == (tool == other)


def test_a_text_that_is_not_unicode_has_a_name() -> None:
    assert is_acceptable(acceptable_name("\ud800"))
