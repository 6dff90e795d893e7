"""The declared dependencies, the pinned versions and the supported Pythons say the same."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = FILE["project"]
DECLARED = [
    Requirement(text)
    # Once, though two extras may need the same.
    for text in dict.fromkeys(
        (
            *FILE["build-system"]["requires"],
            *PROJECT["dependencies"],
            *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
        )
    )
]
PINNED_LINES = [
    line for line in (ROOT / "constraints/versions.txt").read_text().splitlines() if not line.startswith("#")
]
PINNED = [Requirement(line) for line in PINNED_LINES]

# Modules and names that newer Pythons no longer have (their "What's new" pages, section Removed).
REMOVED = {
    "3.12": {"asynchat", "asyncore", "distutils", "imp", "smtpd"},
    "3.13": {
        "aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib",
        "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "tkinter.tix", "uu", "xdrlib",
        "importlib.resources.contents", "locale.resetlocale", "typing.io", "typing.re", "unittest.makeSuite",
    },
    "3.14": {
        "ast.Bytes", "ast.Ellipsis", "ast.NameConstant", "ast.Num", "ast.Str", "asyncio.AbstractChildWatcher",
        "asyncio.FastChildWatcher", "asyncio.MultiLoopChildWatcher", "asyncio.PidfdChildWatcher",
        "asyncio.SafeChildWatcher", "asyncio.ThreadedChildWatcher", "asyncio.get_child_watcher",
        "asyncio.set_child_watcher", "email.utils.localtime.isdst", "importlib.abc.ResourceReader",
        "importlib.abc.Traversable", "importlib.abc.TraversableResources", "itertools.pickle", "pkgutil.find_loader",
        "pkgutil.get_loader", "pty.master_open", "pty.slave_open", "sqlite3.version", "sqlite3.version_info",
        "urllib.parse.Quoter",
    },
}  # fmt: skip


def test_each_version_is_pinned_by_number_alone() -> None:
    marker = r'( ; python_version == "3\.\d+")?'
    assert [line for line in PINNED_LINES if not re.fullmatch(rf"[a-z0-9.-]+==[0-9a-z.+]+{marker}", line)] == []
    assert sorted(pin.name for pin in PINNED) == [pin.name for pin in PINNED]


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_each_dependency_is_pinned_within_its_range(declared: Requirement) -> None:
    pins = [pin for pin in PINNED if pin.name == canonicalize_name(declared.name)]
    assert pins
    for pin in pins:
        [version] = pin.specifier
        assert declared.specifier.contains(version.version, prereleases=True)


def test_the_package_itself_declares_ranges() -> None:
    for text in PROJECT["dependencies"]:
        specifiers = Requirement(text).specifier
        assert {one.operator for one in specifiers} <= {">=", "<"}
        assert ">=" in {one.operator for one in specifiers}


def test_openai_is_supported_from_its_second_major_to_its_third() -> None:
    [openai] = [one for one in DECLARED if one.name == "openai"]
    accepted = [version for version in ("1.109.1", "2.0.0", "2.54.0", "3.57.0", "4.0.0") if version in openai.specifier]
    assert accepted == ["2.0.0", "2.54.0", "3.57.0"]


def test_every_python_from_the_oldest_supported_to_the_newest_has_a_classifier() -> None:
    versions = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if ":: Python ::" in one]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert FILE["tool"]["ruff"]["target-version"] == f"py{versions[0].replace('.', '')}"


def used_names(tree: ast.AST) -> set[str]:
    """Modules that are imported, and dotted names of what is taken from them (`pkgutil.find_loader`)."""
    modules: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            names.add(ast.unparse(node))
    return modules | names | {name.partition(".")[0] for name in modules}


@pytest.fixture(scope="module")
def used() -> dict[str, set[str]]:
    """File -> names, for every source of the repository."""
    folders = ("agents", "bench", "constraints", "meshhost", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {str(path.relative_to(ROOT)): used_names(ast.parse(path.read_text())) for path in sources}


@pytest.mark.parametrize("python", REMOVED)
def test_nothing_is_used_that_this_python_has_removed(used: dict[str, set[str]], python: str) -> None:
    assert len(used) > 300
    assert {file: sorted(names & REMOVED[python]) for file, names in used.items() if names & REMOVED[python]} == {}
