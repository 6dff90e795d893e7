"""Documents become Markdown in a process with bounds; what is wrong with one is said, and costs only that one."""

import asyncio
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from meshhost.errors import LimitExceededError, RequestTimeoutError, ToolError
from meshhost.markitdown import converting
from meshhost.markitdown.converting import convert, turn

pytestmark = pytest.mark.timeout(120)


def sheet(rows: list[list[object]]) -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


async def test_a_sheet_becomes_a_table() -> None:
    assert "| Ann | 7 |" in await convert(sheet([["name", "age"], ["Ann", 7]]), ".xlsx")


async def test_a_page_loses_its_markup() -> None:
    assert await convert(b"<h1>Rooms</h1><p>are open</p>", ".html") == "# Rooms\n\nare open"


async def test_a_broken_document_is_named() -> None:
    broken = io.BytesIO()
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("word/document.xml", "<w:document")
    with pytest.raises(ToolError, match=r"could not be read as \.docx"):
        await convert(broken.getvalue(), ".docx")


async def test_a_large_document_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(LimitExceededError, match="has 11 bytes; at most 10"):
        await convert(b"x" * 11, ".txt")


async def test_a_long_text_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "MAX_MARKDOWN_BYTES", 100_000)
    with pytest.raises(LimitExceededError, match="more than 100000 bytes of text"):
        await convert(b"words " * 100_000, ".txt")


async def test_a_conversion_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RequestTimeoutError, match=r"within 0\.01 s"):
        await convert(b"a", ".txt", timeout=0.01)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put another package `markitdown` first."""

    def write(source: str) -> None:
        (tmp_path / "markitdown.py").write_text(source)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    return write


async def test_a_missing_package_is_named(program: Callable[[str], None]) -> None:
    program("raise ImportError('no module magika')")
    with pytest.raises(ToolError, match=r"pip install 'meshhost\[markitdown\]'"):
        await convert(b"a", ".txt")


async def test_memory_is_bounded(program: Callable[[str], None]) -> None:
    program(
        "class StreamInfo:\n    def __init__(self, extension): pass\n"
        "class MarkItDown:\n"
        "    def __init__(self, enable_plugins): pass\n"
        "    def convert_stream(self, stream, stream_info): return bytearray(10**9)\n"
    )
    with pytest.raises(ToolError, match=r"could not be read as \.txt \(MemoryError\)"):
        await convert(b"a", ".txt", memory_bytes=512 * 1024 * 1024)


async def test_a_parser_gets_no_secret_and_writes_no_file(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program(
        "import os\n"
        "class StreamInfo:\n    def __init__(self, extension): pass\n"
        "class MarkItDown:\n"
        "    def __init__(self, enable_plugins): pass\n"
        "    def convert_stream(self, stream, stream_info):\n"
        "        print('noise')\n"
        f"        try: open({str(tmp_path / 'out')!r}, 'wb').write(b'x' * 10) and 0\n"
        "        except OSError: pass\n"
        "        self.text_content = ','.join(sorted(os.environ)); return self\n"
    )
    seen = await convert(b"a", ".txt")
    assert "OPENAI_API_KEY" not in seen
    assert "noise" not in seen
    assert not (tmp_path / "out").exists() or (tmp_path / "out").stat().st_size == 0


async def test_the_turn_of_one_owner_waits_for_its_own_only() -> None:
    order: list[str] = []
    release = asyncio.Event()

    async def work(owner: str, name: str) -> None:
        async with turn(owner):
            order.append(name)
            await release.wait()

    async with asyncio.TaskGroup() as tasks:
        for owner, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1")):
            tasks.create_task(work(owner, name))
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["a1", "b1"]
        release.set()
    assert order == ["a1", "b1", "a2", "a3"]


async def test_a_flood_of_one_owner_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "MOST_WAITING", 1)
    async with turn("a"):
        with pytest.raises(LimitExceededError, match="wait already"):
            async with turn("a"):
                pass
    with pytest.raises(RequestTimeoutError):
        async with turn("a", timeout=0.01):
            await asyncio.Event().wait()
