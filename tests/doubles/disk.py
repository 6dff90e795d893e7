"""A file system that is soon full, for tests: a tmpfs, which only root may mount."""

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill", "small_file_system"]


@contextmanager
def small_file_system(folder: Path) -> Iterator[Path]:
    """A file system of forty megabytes in a new folder. Skips the test where it may not be mounted."""
    folder.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounting.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:  # what stays mounted keeps pytest from deleting its folders
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill the file system with one file, and return that."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # no space left
        while True:
            file.write(bytes(4096))
    return filler
