"""The JavaScript libraries that Studio brings: pinned, unchanged but for import lines, each with its licence."""

import hashlib
import json
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[3] / "meshhost" / "studio" / "static"
VENDOR = STATIC / "vendor"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text())
OPEN = {"MIT", "Apache-2.0", "(MPL-2.0 OR Apache-2.0)"}


def test_every_file_is_the_one_of_the_manifest() -> None:
    hashes = {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in MANIFEST["files"]}

    assert hashes == {name: entry["sha256"] for name, entry in MANIFEST["files"].items()}


def test_no_other_file_is_there() -> None:
    licences = {licence for package in MANIFEST["packages"].values() for licence in package["licences"]}
    there = {path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("*") if path.is_file()}

    assert there == {*MANIFEST["files"], *licences, "manifest.json"}


@pytest.mark.parametrize("package", MANIFEST["packages"])
def test_a_library_has_a_version_an_open_licence_and_its_text(package: str) -> None:
    facts = MANIFEST["packages"][package]

    assert facts["version"].split(".")[0].isdecimal()
    assert facts["licence"] in OPEN
    assert all(len((VENDOR / licence).read_text()) > 500 for licence in facts["licences"])


def test_every_file_is_of_a_listed_package_and_says_what_it_was_there() -> None:
    for entry in MANIFEST["files"].values():
        assert entry["package"] in MANIFEST["packages"]
        assert len(entry["package_sha256"]) == len(entry["sha256"]) == 64
