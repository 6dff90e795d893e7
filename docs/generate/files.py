"""All generated files of `docs/` together: made, compared with what is committed, written."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from docs.generate import cli, clients, errors, metrics, migrate, names, pictures, rest, settings
from docs.generate.served import look_at_servers

__all__ = ["DOCS", "differing", "generated", "write"]

DOCS = Path(__file__).parents[1]


def generated() -> dict[str, str]:
    """Every generated file: its path below `docs/`, and its text."""
    served = asyncio.run(look_at_servers())
    return {
        **settings.pages(),
        **cli.pages(),
        **metrics.pages(served),
        **errors.pages(),
        **clients.pages(),
        **migrate.pages(),
        **names.pages(),
        **rest.pages(served),
        **pictures.pages(),
    }


def differing(files: Mapping[str, str]) -> list[str]:
    """The paths of files that are missing below `docs/` or have another text there."""
    return [path for path, text in files.items() if not _has(DOCS / path, text)]


def write(files: Mapping[str, str]) -> list[str]:
    """Write what differs; returns the paths that were written."""
    wrong = differing(files)
    for path in wrong:
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(files[path])
    return wrong


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text
