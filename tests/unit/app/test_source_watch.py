"""Which changes of files are noticed."""

import asyncio
import os
from pathlib import Path

from meshhost.app.source_watch import SourceWatch


async def changed(watch: SourceWatch) -> list[str]:
    async with asyncio.timeout(5):
        return await watch.changed()


async def test_written_made_and_removed_files_are_named_once(tmp_path: Path) -> None:
    for name in ("same.py", "edited.py", "removed.py", "touched.py"):
        (tmp_path / name).write_text("1")
    watch = SourceWatch(tmp_path, interval=0.001)
    (tmp_path / "edited.py").write_text("12")
    (tmp_path / "removed.py").unlink()
    os.utime(tmp_path / "touched.py", (1, 1))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "made.py").write_text("")
    assert await changed(watch) == ["below/made.py", "edited.py", "removed.py", "touched.py"]
    (tmp_path / "same.py").unlink()
    assert await changed(watch) == ["same.py"]


async def test_what_is_no_source_is_not_looked_at(tmp_path: Path) -> None:
    watch = SourceWatch(tmp_path, interval=0.001)
    for folder in (".venv", "venv", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "dangling.py").symlink_to("nothing")
    (tmp_path / "main.py").write_text("")
    assert await changed(watch) == ["main.py"]
