"""How the house is built and written: sizes of folders and modules, opening paragraphs, layers, words.

import-linter checks who imports whom; these tests check what it cannot see.
"""

import ast
import functools
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "meshhost"
MODULES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

MOST_MODULES = 15
MOST_LINES = 400
# The sentence by which a module's docstring accounts for more lines.
REASON = rf"Longer than {MOST_LINES} lines because \w+"
# How often tests may access a private member of another object.
MOST_PRIVATE = 148
# A module of more lines than this opens with a paragraph of at least so many words.
SHORT_LINES = 80
LEAST_WORDS = 25

# Words that made readers stop, with what to write instead.
RIDDLES = {
    r"\bwhoever\b": "the one that …; callers that …",
    r"\bbe it\b": "or; even if",
    r"\bso long\b": "for N seconds; as long as → while",
    r"\bin work\b": "in progress",
    r"\b(tell|tells|told|telling) of\b": "report, log",
    r"\b(hear|hears|heard|hearing) of\b": "be notified of, receive",
    r"\bis no news\b": "is ignored; idempotent",
    r"\bthe (longer|sooner|more often), the\b": "say the rule as a formula or in two sentences",
    r"\bas many more\b": "merge",
}


def docstring_of(name: str) -> str:
    return ast.get_docstring(ast.parse(MODULES[name])) or ""


@functools.cache
def prose_of(name: str) -> list[tuple[int, str]]:
    """Comments and strings (docstrings, messages, help texts) of a module, with their line numbers."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.COMMENT)}
    tokens = tokenize.generate_tokens(io.StringIO(MODULES[name]).readline)
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


def found(pattern: str) -> list[str]:
    """Where the prose of any module has this."""
    return [
        f"{name}:{line}: {match[0]!r}"
        for name in MODULES
        for line, text in prose_of(name)
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def lines(name: str) -> int:
    return MODULES[name].count("\n")


def test_no_folder_holds_more_modules_than_one_keeps_in_mind() -> None:
    folders = [path for path in (PACKAGE, *PACKAGE.rglob("*")) if path.is_dir()]
    counts = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_a_long_module_says_why() -> None:
    long = {name: lines(name) for name in MODULES if lines(name) > MOST_LINES}
    assert {name: n for name, n in long.items() if not re.search(REASON, " ".join(docstring_of(name).split()))} == {}


def test_every_module_opens_with_a_docstring() -> None:
    assert [name for name in MODULES if MODULES[name].strip() and not docstring_of(name)] == []


def test_a_module_of_some_length_opens_with_a_paragraph() -> None:
    words = {name: len(docstring_of(name).split()) for name in MODULES if lines(name) > SHORT_LINES}
    assert {name: count for name, count in words.items() if count < LEAST_WORDS} == {}


@pytest.mark.parametrize(("riddle", "better"), RIDDLES.items())
def test_words_are_plain(riddle: str, better: str) -> None:
    assert found(riddle) == [], f"write instead: {better}"


def test_nothing_is_left_to_be_done() -> None:
    assert found(r"\b(TODO|FIXME)\b") == []


def test_tests_reach_into_private_names_no_more_often() -> None:
    # A test that needs a private name shows that a knob is missing: add the knob. Lower the number when fewer are left.
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--exit-zero", "--output-format", "concise"]
    done = subprocess.run([*ruff, "--select", "SLF001", "tests"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = [line.partition(" ")[0] for line in done.stdout.splitlines() if " SLF001 " in line]
    assert len(found) <= MOST_PRIVATE, found


def contract(kind: str) -> dict[str, Any]:
    [one] = [one for one in LINTER["contracts"] if one["type"] == kind]
    return dict(one)


def test_every_package_has_its_layer() -> None:
    layers = contract("layers")
    placed = {name for layer in layers["layers"] for name in layer.split(" | ")}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert layers["exhaustive"] is True
    assert placed == there - {"__init__"}


def test_circles_are_forbidden_in_every_package_and_imports_for_types_count() -> None:
    circles = contract("acyclic_siblings")
    assert circles["ancestors"] == ["meshhost"]
    assert not circles.keys() & {"ignore_imports", "depth"}  # every package, at every depth, without exceptions
    assert LINTER["exclude_type_checking_imports"] is False


def test_server_and_hosting_do_not_know_each_other() -> None:
    assert "hosting | server" in contract("layers")["layers"]
    for name, source in MODULES.items():
        parts = re.findall(r"^\s*(?:from|import) meshhost\.(hosting|server)\b", source, re.MULTILINE)
        assert len(set(parts)) < 2 or name.startswith(("meshhost/app/", "meshhost/cli/", "meshhost/testing/"))
