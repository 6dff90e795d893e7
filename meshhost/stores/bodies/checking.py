"""Reads an upload that is to be a message's body: whether it is JSON, its checksum, and its beginning.

A body may have many megabytes, and Python's parser would hold the interpreter, and with it every room, until it had read all of
it. SQLite's `json_valid` reads the same grammar in a thread without holding the interpreter, and makes no objects. The caller
checks one body at a time: it is in memory meanwhile.
"""

import codecs
import contextlib
import hashlib
import re
import sqlite3
from dataclasses import dataclass
from typing import IO

from meshhost.errors import InvalidRequestError
from meshhost.stores.bodies.reference import BEGINNING_CHARS

__all__ = ["CheckedBody", "beginning_of", "check_body"]

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class CheckedBody:
    """What is known of a body that is JSON."""

    size: int
    sha256: str
    beginning: str


def check_body(file: IO[bytes], size: int, what: str) -> CheckedBody:
    """Return what is known of the body in a file, which has `size` bytes; blocks.

    Raises InvalidRequestError, which names `what`, unless it is JSON.
    """
    decoder, digest, beginning = codecs.getincrementaldecoder("utf-8")(), hashlib.sha256(), ""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        # In pieces: one parameter of megabytes would be copied while the interpreter is held.
        database.execute("CREATE TABLE body (bytes BLOB)")
        database.execute("INSERT INTO body VALUES (zeroblob(?))", (size,))
        with database.blobopen("body", "bytes", 1) as blob:
            try:
                while chunk := file.read(_CHUNK):
                    if b"\0" in chunk:  # SQLite would take it for the end of the text
                        raise InvalidRequestError(what, "expected JSON")
                    text = decoder.decode(chunk)
                    beginning = beginning or text[:BEGINNING_CHARS]
                    digest.update(chunk)
                    blob.write(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                raise InvalidRequestError(what, "expected JSON in UTF-8") from None
        (is_json,) = database.execute("SELECT json_valid(CAST(bytes AS TEXT)) FROM body").fetchone()
    if not is_json:
        raise InvalidRequestError(what, "expected JSON")
    return CheckedBody(size, digest.hexdigest(), beginning_of(beginning))


def beginning_of(text: str) -> str:
    """Return the first characters of a JSON text in ASCII, in which searches look, as they do in bodies of usual size."""
    ascii_only = re.sub(r"[^\x00-\x7f]", _escaped, text[:BEGINNING_CHARS])
    if len(ascii_only) <= BEGINNING_CHARS:
        return ascii_only
    # Not within an escape.
    return re.sub(r"\\(u[0-9a-f]{0,3})?$", "", ascii_only[:BEGINNING_CHARS])


def _escaped(letter: re.Match[str]) -> str:
    data = letter[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at]:02x}{data[at + 1]:02x}" for at in range(0, len(data), 2))
