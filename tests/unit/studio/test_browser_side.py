"""The browser side of Studio: its own tests, run by Node; and rules that a strict Content-Security-Policy asks of the files."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    Response,
    TextResponse,
    pack_message,
    pack_response,
)
from tests.unit.protocol.vectors import BAD_BODIES, BROKEN_STREAMS, RESPONSES, UNREADABLE

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "meshhost" / "studio" / "static"
OURS = [path for path in STATIC.rglob("*") if path.is_file() and "vendor" not in path.relative_to(STATIC).parts]
MODULES = [path for path in OURS if path.suffix == ".js"]
MOST_LINES = 400
MOST_FILES = 24
FIRST_LOAD_BYTES = 300_000
# A module that is imported, at the start or later.
IMPORT = r"""(?:\bfrom\s*|\bimport\s*\(?\s*)["']([^"'\n]+)["']"""
NODE = shutil.which("node")


def vectors() -> dict[str, Any]:
    messages = [
        (Message(1, "é", b"abcde"), 2),
        (Message(0, "", b""), 64),
        (Message(2**64 - 1, "queues.send", bytes(range(256))), 100),
        (Message(7, "t", b"a"), 1),
        (Message(2**53 + 1, "room.sync", b"x" * 3000), 1024),
    ]
    headers: list[tuple[dict[str, Any], bytes]] = [
        ({}, b""),
        ({"a": 1, "é": "ü\u2028", "deep": [{"x": None}]}, b"\x00\xff"),
    ]
    return {
        "messages": [
            {
                "id": str(message.id),
                "type": message.type,
                "data": message.data.hex(),
                "slice": size,
                "packets": [packet.hex() for packet in packets(message, slice_bytes=size)],
            }
            for message, size in messages
        ],
        "broken_streams": [[packet.hex() for packet in stream] for stream in BROKEN_STREAMS],
        "unreadable": [raw.hex() for raw in UNREADABLE],
        "headers": [
            {"header": header, "payload": payload.hex(), "packed": pack_message(header, payload).hex()}
            for header, payload in headers
        ],
        "replies": [
            {"type": each.type, "packed": pack_response(each).hex(), "value": value_of(each)} for each in RESPONSES
        ],
        "bad_bodies": [header for header, _ in BAD_BODIES],
    }


def value_of(response: Response) -> Any:
    """What a page gets for this reply."""
    match response:
        case JsonResponse():
            return response.json
        case TextResponse() | ErrorResponse():
            return response.text
        case FileResponse():
            return [response.name, response.data.hex()]
        case LinkResponse():
            return {"name": response.name, "url": response.url}
        case RawOutputs():
            return {"outputs": response.outputs}
        case EmptyResponse():
            return None


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_the_tests_of_the_browser_side_pass(tmp_path: Path) -> None:
    written = tmp_path / "vectors.json"
    written.write_text(json.dumps(vectors()))

    done = subprocess.run(
        [str(NODE), "--test", *map(str, sorted((ROOT / "tests" / "studio").glob("*.test.mjs")))],
        env={"PROTOCOL_VECTORS": str(written), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_import_is_a_file_that_is_there() -> None:
    missing = [
        f"{path.relative_to(STATIC)}: {target}"
        for path in STATIC.rglob("*.js")
        for target in re.findall(
            IMPORT, re.sub(r"[{<]import\(.*?\)|^\s*\*.*$", "", path.read_text(), flags=re.MULTILINE)
        )
        if re.match(r"[./@\w-]+$", target) and not (path.parent / target).is_file()
    ]

    assert missing == []


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(STATIC)))
def test_nothing_needs_what_the_content_security_policy_forbids(path: Path) -> None:
    text = path.read_text()

    assert not re.search(r"\beval\(|new Function\(|javascript:|document\.write|innerHTML|insertAdjacentHTML", text)
    assert "dangerouslySetInnerHTML" not in text or path.name == "preact.js"  # where a comment says that nobody does
    assert not re.search(r"https?://(?!www\.w3\.org|127\.0\.0\.1)", text)
    if path.suffix == ".html":
        assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=", text)


def test_a_file_has_one_reason_to_change_and_a_folder_few_files() -> None:
    long = {path.name: path.read_text().count("\n") for path in MODULES}
    folders = {path.parent for path in MODULES}

    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}
    assert {folder.name for folder in folders if len(list(folder.glob("*.js"))) > MOST_FILES} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(STATIC)))
def test_a_module_opens_by_saying_what_it_is_for(path: Path) -> None:
    assert re.match(r"/\*\*|//", path.read_text())


def first_modules() -> set[Path]:
    """What the page needs before it shows Home."""
    loaded: set[Path] = set()
    waiting = [STATIC / "app" / "main.js", STATIC / "pages" / "home.js"]
    while waiting:
        path = waiting.pop().resolve()
        if path not in loaded:
            loaded.add(path)
            imports = re.findall(r"""\bfrom\s*["'](\.[^"'\n]+)["']""", path.read_text())
            waiting += [path.parent / target for target in imports]
    return loaded


def test_the_page_asks_for_all_first_modules_at_once() -> None:
    page = (STATIC / "index.html").read_text()
    preloaded = set(re.findall(r'rel="modulepreload" href="/studio/static/-/([^"]+)"', page))

    assert preloaded == {str(path.relative_to(STATIC)) for path in first_modules()} - {"app/main.js"}


def test_the_first_load_is_small() -> None:
    loaded = first_modules()
    loaded |= {path for path in OURS if path.suffix in {".css", ".html", ".svg"}}
    loaded |= {STATIC / "early.js", STATIC / "vendor" / "uplot.css"}

    assert sum(len(gzip.compress(path.read_bytes())) for path in loaded) < FIRST_LOAD_BYTES
