"""Write constraints/versions.txt: the newest versions that the ranges of pyproject.toml allow, the same for every Python.

`make constraints` calls this when dependencies are to be renewed. For each supported Python that the machine has, everything
that pyproject.toml names (dependencies, extras, build system) is installed into a virtual environment that is thrown away,
and what pip then reports is written down as `name==version` lines. A version that only some Pythons get has a marker, so one
file serves all of them. No index address and no path is written: where packages come from is decided by pip's configuration.
"""

import itertools
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = Path(__file__).with_name("versions.txt")
HEADER = """\
# The exact versions that `make demo`, `make test` and the image use. Made by `make constraints`; do not edit.
"""


def supported_pythons() -> list[str]:
    """The minor versions that the classifiers name, oldest first."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    return [found[1] for one in classifiers if (found := re.fullmatch(r".* :: Python :: (3\.\d+)", one))]


def interpreter_of(version: str) -> str | None:
    """A working interpreter of this minor version: from PATH, else from pyenv; None where the machine has none."""
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True)
    for candidate in (f"python{version}", *map(str, installed)):
        question = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            answer = subprocess.run([candidate, "-c", question], check=False, capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if answer.stdout.strip() == version:
            return candidate
    return None


def requirements() -> list[str]:
    """Everything that pyproject.toml names, and pip itself."""
    file = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = itertools.chain(*file["project"]["optional-dependencies"].values())
    return ["pip", *file["build-system"]["requires"], *file["project"]["dependencies"], *extras]


def frozen(interpreter: str) -> dict[str, str]:
    """Install the newest of everything into a fresh environment; returns package name -> version."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([interpreter, "-m", "venv", directory], check=True)
        pip = [f"{directory}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        # The new pip first: old ones find no set of OpenTelemetry versions that fit each other.
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "install", "--quiet", *requirements()], check=True)
        listed = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout
    pairs = (line.split("==") for line in listed.splitlines())
    return {name.lower().replace("_", "-"): version for name, version in pairs if name != "setuptools"}


def lines(versions: dict[str, dict[str, str]]) -> list[str]:
    """`versions` is Python -> package -> version. One line a package, or one for each Python where they differ."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for python, packages in versions.items():
        for name, version in packages.items():
            found[name][python] = version
    result = []
    for name, by_python in sorted(found.items()):
        if len(set(by_python.values())) == 1:
            # Also right for a Python that does not need this package: a constraint installs nothing.
            result.append(f"{name}=={next(iter(by_python.values()))}")
        else:
            result += [f'{name}=={version} ; python_version == "{python}"' for python, version in by_python.items()]
    return result


def main() -> None:
    versions = {}
    for version in supported_pythons():
        interpreter = interpreter_of(version)
        if interpreter is None:
            print(f"Python {version} is not on this machine: skipped", file=sys.stderr)
            continue
        print(f"resolving for Python {version}")
        versions[version] = frozen(interpreter)
    TARGET.write_text(HEADER + "\n".join(lines(versions)) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--interpreter"]:
        # For .ci/run: the interpreter of a version, or nothing.
        print(interpreter_of(sys.argv[2]) or "")
    elif sys.argv[1:] == ["--pythons"]:
        print(*supported_pythons())
    else:
        main()
