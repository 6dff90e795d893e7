"""Writes and reads archives as uncompressed tar, in one pass and with bounded memory.

`TarEncoder` makes the bytes of entry after entry for a caller that sends them; nothing is kept but the checksum. `read_entries`
walks a file that was received. It takes only what the encoder writes (plain files, and GNU's long names), so that a tar made by
somebody else cannot make it do anything: no links, no devices, no sparse files, no headers of any size. `tar tf` and `tar xf`
read these files too.

The last entry, `SHA256`, is the checksum of everything before it. It finds damage and truncation, not forgery: who can change
an archive can change the checksum. The importer checks the content for that reason.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import IO, Any, Final

from meshhost.errors import InvalidRequestError

__all__ = ["Entry", "Slice", "TarEncoder", "damaged", "open_entry", "read_entries"]

CHECKSUM: Final = "SHA256"
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_LONGEST_NAME = 4096
_DIGEST_LENGTH = 64
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in an archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


class TarEncoder:
    """Makes the bytes of an archive: for each entry `begin`, its `data`, `end`; at last `finish`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0

    def entry(self, name: str, data: bytes) -> bytes:
        """Return a whole entry."""
        return self.begin(name, len(data)) + self.data(data) + self.end(len(data))

    def begin(self, name: str, size: int) -> bytes:
        """Return the header of an entry."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        # GNU's form: the header says every size itself, and only a long name takes an entry more.
        return self.data(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))

    def data(self, chunk: bytes) -> bytes:
        """Return the chunk, which the checksum counts from now on."""
        self._hash.update(chunk)
        return chunk

    def end(self, size: int) -> bytes:
        """Return what fills the last block of an entry of this size."""
        return self.data(bytes(-size % _BLOCK))

    def finish(self) -> bytes:
        """Return the checksum and the end of the archive."""
        digest = self._hash.hexdigest().encode()
        return self.entry(CHECKSUM, digest) + _END


class Slice(RawIOBase):
    """A part of a file as a file. Only one slice of a file can be read at a time."""

    def __init__(self, file: IO[bytes], entry: Entry) -> None:
        self._file = file
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def seekable(self) -> bool:
        """See RawIOBase."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """See RawIOBase."""
        self._position = max((0, self._position, self._entry.size)[whence] + offset, 0)
        return self._position

    def tell(self) -> int:
        """See RawIOBase."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase."""
        self._file.seek(self._entry.offset + self._position)
        found = self._file.read(max(min(len(buffer), self._entry.size - self._position), 0))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


def open_entry(file: IO[bytes], entry: Entry) -> BufferedReader:
    """Return the entry's bytes as a file."""
    return BufferedReader(Slice(file, entry))


def damaged(why: str) -> InvalidRequestError:
    """Return the error for a file that is no whole archive of ours."""
    return InvalidRequestError("archive", f"it is damaged or incomplete, and nothing was imported ({why})")


def read_entries(file: IO[bytes], *, is_checked: bool = False) -> Iterator[Entry]:
    """Yield the entries in order, without the checksum, which is compared unless `is_checked`.

    Reads every byte once; blocks. Raises InvalidRequestError for a file that is damaged, incomplete, or names a path that could
    lead out of a folder. What was yielded before is worth nothing then.
    """
    digest, offset, long_name = hashlib.sha256(), 0, ""
    while True:
        header = _read(file, offset, _BLOCK)
        info = _info(header)
        name = long_name or info.name
        if name == CHECKSUM:
            if info.size != _DIGEST_LENGTH:
                raise damaged("the checksum is of another size")
            data = _read(file, offset + _BLOCK, info.size)
            if not is_checked and data != digest.hexdigest().encode():
                raise damaged("the checksum is another one")
            _check_end(file, offset + 2 * _BLOCK)
            return
        digest.update(header)
        start, size = offset + _BLOCK, info.size + -info.size % _BLOCK
        if info.type == tarfile.GNUTYPE_LONGNAME:
            if not 0 < info.size <= _LONGEST_NAME:
                raise damaged("a name is too long")
            data = _read(file, start, size)
            digest.update(data)
            long_name = _text(data[: info.size].rstrip(b"\0"))
        else:
            if not is_checked:
                _check_name(name)
                _hash(file, start, size, digest)
            long_name = ""
            yield Entry(name, start, info.size)
        offset = start + size


def _info(header: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.TarError, UnicodeDecodeError, ValueError) as error:
        raise damaged(str(error) or type(error).__name__) from None
    if info.type not in {tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME} or info.size < 0:
        raise damaged("an entry is of a kind that archives do not have")
    return info


def _check_end(file: IO[bytes], offset: int) -> None:
    file.seek(offset)
    if file.read(len(_END) + 1) != _END:
        raise damaged("it does not end where it should")


def _check_name(name: str) -> None:
    if {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
        raise InvalidRequestError("archive", f"a path leads elsewhere, and nothing was imported: {name[:200]!r}")


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise damaged("the file ends early")
    return data


def _hash(file: IO[bytes], start: int, size: int, digest: Any) -> None:
    end = start + size
    while start < end:
        chunk = _read(file, start, min(_CHUNK, end - start))
        digest.update(chunk)
        start += len(chunk)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise damaged("a name is not Unicode") from None
