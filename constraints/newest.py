"""Run the tests with the newest versions that pyproject.toml allows, and name the package whose new version broke them.

`make test-newest` calls this with the Python of an environment of its own. First everything is upgraded, without constraints,
and the tests run. When some fail, they run again with the exact versions of constraints/versions.txt: what fails there too is
not the new versions' fault. For the rest each package that has a newer version is upgraded alone and the failed tests run
again, until the one that breaks them is found. Exit code 0 means that the newest versions work.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ROOT / "constraints" / "versions.txt"
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EVERYTHING = f".[{','.join(_PROJECT['optional-dependencies'])}]"
CACHE = ".pytest_cache/newest"
TESTS = ["tests/unit", "tests/contract", "tests/integration"]


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True, cwd=ROOT
    )


def installed() -> dict[str, str]:
    """Package name -> version, of this environment."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {one["name"].lower().replace("_", "-"): one["version"] for one in listed if one["name"] != "meshhost"}


def failed(*tests: str) -> list[str]:
    """Run these tests; returns the ids of those that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "--cache-clear", "-o", f"cache_dir={CACHE}", *tests]
    code = subprocess.run(command, check=False, cwd=ROOT).returncode
    if code not in {0, 1}:
        sys.exit(f"pytest ended with {code}: the tests cannot even be collected with {installed()}")
    return [] if code == 0 else list(json.loads((ROOT / CACHE / "v/cache/lastfailed").read_text()))


def pin() -> None:
    pip("install", "--constraint", str(VERSIONS), "--editable", EVERYTHING)


def culprits(newer: dict[str, str], tests: list[str]) -> list[str]:
    """The packages that, upgraded alone above the pinned versions, make one of these tests fail."""
    found = []
    for name, version in newer.items():
        pip("install", f"{name}=={version}")
        if failed(*tests):
            found.append(f"{name}=={version}")
        pin()
    return found


def main() -> int:
    pip("install", "--upgrade", "--upgrade-strategy", "eager", "--editable", EVERYTHING)
    newest = installed()
    broken = failed(*TESTS)
    if not broken:
        print("the newest versions work")
        return 0
    pin()
    pinned = installed()
    newer = {name: version for name, version in newest.items() if pinned.get(name) not in {None, version}}
    print(
        "newer than constraints/versions.txt:",
        *(f"{name} {pinned[name]} -> {newer[name]}" for name in newer),
        sep="\n  ",
    )
    anyway = failed(*broken)
    if anyway:
        print("these tests fail with the pinned versions too:", *anyway, sep="\n  ")
    broken = [test for test in broken if test not in anyway]
    if broken:
        found = culprits(newer, broken) or ["several new versions together, or tests that fail at times"]
        print("broken tests:", *broken, "broken by:", *found, sep="\n  ")
    return 1


if __name__ == "__main__":
    sys.exit(main())
