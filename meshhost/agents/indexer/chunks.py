"""Cuts texts into chunks: pieces that are searched, embedded and shown one by one.

`TextChunker` needs nothing: it cuts between paragraphs, then lines, sentences and words, so that each chunk is as long as it
may be. `ChonkieChunker` uses the library chonkie where it is installed. Indexers take any `Chunker`.
"""

import asyncio
import importlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from meshhost.errors import InvalidRequestError

__all__ = ["ChonkieChunker", "Chunk", "Chunker", "TextChunker"]

# Where a text may be cut, from the best place to the worst.
_CUTS = tuple(re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"(?<=[.!?])\s+", r"\s+"))
_CHARS = 1200
# A token of an embedder has about four characters in English, and more than one in any language.
_CHARS_PER_TOKEN = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text, and where it begins and ends there."""

    text: str
    start: int
    end: int


class Chunker:
    """Cuts texts; override `chunk`."""

    async def chunk(self, *, text: str, max_length: int | None = None) -> list[Chunk]:
        """Return the chunks of a text, in order. `max_length` is what an embedder takes, in tokens."""
        raise NotImplementedError


class TextChunker(Chunker):
    """Cuts a text into chunks of at most `chars` characters, at the best places that there are."""

    def __init__(self, *, chars: int = _CHARS) -> None:
        if chars < 1:
            raise InvalidRequestError("chars", "expected at least 1")
        self._chars = chars

    async def chunk(self, *, text: str, max_length: int | None = None) -> list[Chunk]:
        """See Chunker."""
        most = self._chars if max_length is None else min(self._chars, max(1, max_length * _CHARS_PER_TOKEN))
        return await asyncio.to_thread(_cut, text, most)


class ChonkieChunker(Chunker):
    """Cuts by a chunker of the library chonkie; without one by its SemanticChunker, or as TextChunker without chonkie."""

    def __init__(self, chunker: Any = None) -> None:
        if chunker is None and find_spec("chonkie") is not None:
            chunker = importlib.import_module("chonkie").SemanticChunker()
        self._chunker = chunker
        self._other = TextChunker()

    async def chunk(self, *, text: str, max_length: int | None = None) -> list[Chunk]:
        """See Chunker."""
        if self._chunker is None:
            return await self._other.chunk(text=text, max_length=max_length)
        found = await asyncio.to_thread(self._chunker.chunk, text)
        return [Chunk(each.text, each.start_index, each.end_index) for each in found]


def _cut(text: str, most: int) -> list[Chunk]:
    chunks, start = [], 0
    while start < len(text):
        end = min(start + most, len(text))
        if end < len(text):
            end = start + _place(text[start:end])
        piece = text[start:end]
        if stripped := piece.strip():
            begin = start + len(piece) - len(piece.lstrip())
            chunks.append(Chunk(stripped, begin, begin + len(stripped)))
        start = end
    return chunks


def _place(text: str) -> int:
    """Where to cut a text that is as long as a chunk may be: as late as possible, and if that can be not in its first half."""
    for cut in _CUTS:
        places = [match.end() for match in cut.finditer(text)]
        if places and places[-1] > len(text) // 2:
            return places[-1]
    return len(text)
