"""Copies the JavaScript libraries of Studio from the npm registry into `meshhost/studio/static/vendor`.

Studio is served from inside the wheel, offline and with no build: the libraries are files of this repository, each exactly as
its package has it, but for one thing. A browser resolves `import … from "yjs"` only with an import map, which has to stand
inside the page, and the Content-Security-Policy of Studio lets nothing run that stands inside a page. So names of packages in
import lines are replaced by relative paths, and references to source maps, which are not copied, are removed. `manifest.json`
says for each file where it is from, the hash that it has in its package and the hash that it has here;
`tests/unit/studio/test_vendor.py` compares.

To take a new version, change PACKAGES and run `python constraints/vendor.py`. It needs `npm`.
"""

import hashlib
import json
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent.parent / "meshhost" / "studio" / "static" / "vendor"

# Package and version; file in the package → file here; licence files. Files that are imported by these follow by themselves.
PACKAGES: dict[str, dict[str, Any]] = {
    "preact": {
        "version": "11.2.0",
        "files": {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "preact-hooks.js"},
        "licences": ["LICENSE"],
    },
    "htm": {"version": "3.1.1", "files": {"dist/htm.mjs": "htm.js"}, "licences": ["LICENSE"]},
    "@preact/signals-core": {
        "version": "1.14.5",
        "files": {"dist/signals-core.mjs": "signals.js"},
        "licences": ["LICENSE"],
    },
    "uplot": {
        "version": "1.6.32",
        "files": {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css"},
        "licences": ["LICENSE"],
    },
    "marked": {"version": "18.2.1", "files": {"lib/marked.esm.js": "marked.js"}, "licences": ["LICENSE"]},
    "dompurify": {
        "version": "3.5.0",
        "files": {"dist/purify.es.mjs": "purify.js"},
        "licences": ["LICENSE", "LICENSE-MPL"],
    },
    "yjs": {"version": "13.6.33", "files": {"dist/yjs.mjs": "yjs.js"}, "licences": ["LICENSE"]},
    "lib0": {"version": "0.2.120", "files": {}, "licences": ["LICENSE"]},
}
# What an import line calls a file of a package.
_NAMES = {"preact": ("preact", "dist/preact.mjs")}
_IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*)(["'])([^"'\n]+)\2""")
_SOURCE_MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unpacked(folder: Path) -> dict[str, Path]:
    """The packages by name, as the registry has them."""
    unpacked = {}
    for name, package in PACKAGES.items():
        target = folder / name.replace("/", "-").lstrip("@")
        target.mkdir()
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", str(target), f"{name}@{package['version']}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = target.glob("*.tgz")
        package["tarball_sha256"] = _digest(archive.read_bytes())
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        unpacked[name] = target / "package"
    return unpacked


def _place(name: str, path: str) -> str:
    """Where a file of a package is here."""
    known = PACKAGES[name]["files"].get(path)
    return known or f"{name}/{path}"


def _imported(importer: tuple[str, str], target: str) -> tuple[str, str]:
    """Package and path that an import line of a file means."""
    if target.startswith("."):
        return importer[0], posixpath.normpath(posixpath.join(posixpath.dirname(importer[1]), target))
    if target in _NAMES:
        return _NAMES[target]
    package, _, rest = target.partition("/")
    if package in PACKAGES and rest:
        return package, rest if rest.endswith(".js") else f"{rest}.js"
    sys.exit(f"{importer[0]}/{importer[1]} imports {target}: say in constraints/vendor.py which file that is")


def _relative(source: str, target: str) -> str:
    up = "../" * source.count("/")
    return f"{up or './'}{target}"


def _copy(unpacked: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Copy the files and what they import; return the manifest's entries by the name here."""
    waiting = [(name, path) for name, package in PACKAGES.items() for path in package["files"]]
    copied: dict[str, dict[str, str]] = {}
    while waiting:
        name, path = waiting.pop()
        here = _place(name, path)
        if here in copied:
            continue
        original = (unpacked[name] / path).read_bytes()
        text = original.decode()
        if here.endswith(".js"):

            def replaced(found: re.Match[str], owner: tuple[str, str] = (name, path), here: str = here) -> str:
                wanted = _imported(owner, found[3])
                waiting.append(wanted)
                return f"{found[1]}{found[2]}{_relative(here, _place(*wanted))}{found[2]}"

            text = _SOURCE_MAP.sub("\n", _IMPORT.sub(replaced, text))
        target = STATIC / here
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        copied[here] = {
            "package": name,
            "path": path,
            "package_sha256": _digest(original),
            "sha256": _digest(text.encode()),
        }
    return dict(sorted(copied.items()))


def main() -> None:
    """Replace the folder."""
    shutil.rmtree(STATIC, ignore_errors=True)
    STATIC.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        unpacked = _unpacked(Path(folder))
        files = _copy(unpacked)
        packages = {}
        for name, package in PACKAGES.items():
            licences = []
            for licence in package["licences"]:
                target = STATIC / "licences" / f"{name.replace('/', '-').lstrip('@')}-{licence}.txt"
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(unpacked[name] / licence, target)
                licences.append(f"licences/{target.name}")
            facts = json.loads((unpacked[name] / "package.json").read_text())
            packages[name] = {
                "version": package["version"],
                "licence": facts["license"],
                "licences": licences,
                "tarball_sha256": package["tarball_sha256"],
            }
    manifest = {"packages": packages, "files": files}
    (STATIC / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
