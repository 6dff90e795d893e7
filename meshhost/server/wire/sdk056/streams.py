"""Built-in tools that are called with a stream of chunks: files up and down, documents, the developer log.

The client opens a stream with a request, and sends each chunk as a request of its own. What a stream has come to is kept in a
`Stream`, which the translator of the connection finds by the id of the call (`translator.py`) and hands to the operations here
with the chunk. They ask the operations of the services for what is to be done, as any client of another dialect would, with
the participant's grants; what the client is to get goes out as chunks. Files are moved by request of the receiving side, a
piece at a time, so neither side has more than a piece in memory, and an upload that breaks off stores nothing.

Chunks of one stream are handled one after the other. Any error ends the stream and lets go of what it held: the client gets it
as a chunk, since the Python client does not look at the answers to its chunks and would wait for ever, and the JavaScript
client waits for them but takes only empty ones. What two streams of a connection share, such as the developer log, is let go
of when the last of them ends.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import InstanceOf

from meshhost.errors import ConnectionLostError, InvalidRequestError, RoomError
from meshhost.protocol import contents as bodies
from meshhost.protocol.messages import EmptyResponse, FileResponse, Header
from meshhost.server.core.peer import Peer
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.core.slots import Slot
from meshhost.server.wire.failures import error_answer
from meshhost.server.wire.sdk056 import chunks, contents
from meshhost.server.wire.sdk056.asking import Ask, json_of
from meshhost.server.wire.sdk056.documents import Documents

__all__ = ["ADD", "OPEN", "BuiltInStreams", "Stream"]

logger = logging.getLogger(__name__)

OPEN, ADD = "stream.open", "stream.add"
"""Operations of the dialect: open a stream, and take its next chunk."""

# Bytes of a file in one chunk.
_PIECE = 256 * 1024


@dataclass(slots=True, eq=False)
class Stream:
    """One stream of a connection. `call` names it on the wire; `path` is that of its file or document."""

    call: str
    kind: str
    path: str = ""
    is_ended: bool = False
    # Of a document: its schema, until the chunk that tells its state.
    schema: Any = None
    # Of a file: its handle while it is written, how much was moved, how much there is, and the version that is read.
    handle: str | None = None
    moved: int = 0
    size: int | None = None
    version: str | None = None
    piece: int = _PIECE
    peer: Peer | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


# Those of a connection that were opened and have not ended; and those that failed where nothing could be awaited, and still
# hold what they held.
_OPEN_STREAMS: Slot[set[Stream]] = Slot(set)
_BROKEN_STREAMS: Slot[list[Stream]] = Slot(list)
_CLEANING = Slot(asyncio.Lock)


class _Open(Body):
    stream: InstanceOf[Stream]


class _Chunk(Body):
    stream: InstanceOf[Stream] | None = None
    tool_call_id: Any = None
    # Checked by who takes it: the stream that it is of has to end when it is wrong.
    chunk: Any = None


class BuiltInStreams:
    """The operations that streams of built-in tools need. `other_tools` is the operation that takes chunks of other tools."""

    def __init__(self, ask: Ask, *, other_tools: str) -> None:
        self._ask = ask
        self._other_tools = other_tools
        self._documents = Documents(ask)
        # Each handles a chunk, and returns True when a service has replied to it already.
        self._steps: Mapping[str, Callable[[Request, Stream, Header], Awaitable[bool | None]]] = {
            "upload": self._upload,
            "download": self._download,
            "document": self._document,
            "logs": self._logs,
        }

    def operations(self) -> Operations:
        """The operations by name."""
        # Not refused for the tenant's rate: the Python client would go on without that chunk.
        adding = Operation(_Chunk, self._add, frees=True, on_unreadable=self._take_unreadable)
        return {OPEN: Operation(_Open, self._open), ADD: adding, **self._documents.operations()}

    def _open(self, request: Request, body: _Open) -> Answer | Coroutine[Any, Any, Answer]:
        stream = body.stream
        stream.peer = request.peer
        _OPEN_STREAMS.of(request.peer).add(stream)
        return self._watch(request, stream) if stream.kind == "logs" else contents.OPENED

    async def _watch(self, request: Request, stream: Stream) -> Answer:
        try:
            await self._ask(request, "developer.watch", {})
        except BaseException:
            _forget(stream)
            raise
        return contents.OPENED

    async def _add(self, request: Request, body: _Chunk) -> Answer:
        if _BROKEN_STREAMS.get(request.peer):  # before anything else: the client may open the same again
            async with _CLEANING.of(request.peer):  # chunks that come meanwhile stay in their order
                while broken := _BROKEN_STREAMS.get(request.peer):
                    await self._let_go(request, broken[-1])
                    del broken[-1]
        if body.stream is None:
            passed_on = {"stream": body.tool_call_id, "chunk": body.chunk}
            return await self._ask(request, self._other_tools, passed_on, request.message.payload)
        return await self._take(request, body.stream, body.chunk)

    async def _take(self, request: Request, stream: Stream, chunk: Any) -> Answer:
        async with stream.lock:
            if not stream.is_ended and await self._step(request, stream, chunk):
                return None
        return EmptyResponse()

    async def _step(self, request: Request, stream: Stream, chunk: Any) -> bool:
        try:
            return await self._handle(request, stream, chunk)
        except ConnectionLostError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client waits for the end
            answer = error_answer(error, request.message)
            await self._let_go(request, stream)
            _fail(stream, answer.text, answer.code)
            return False

    async def _handle(self, request: Request, stream: Stream, chunk: Any) -> bool:
        if not isinstance(chunk, dict):
            raise InvalidRequestError("chunk", "expected a content")
        return bool(await self._steps[stream.kind](request, stream, chunk))

    async def _let_go(self, request: Request, stream: Stream) -> None:
        """Give back what a stream that failed holds."""
        try:
            if stream.handle is not None:
                await self._ask(request, "storage.abort", {"handle": stream.handle})
            elif stream.kind == "document" and stream.path:
                await self._ask(request, "sync.close", {"path": stream.path})
            elif stream.kind == "logs":
                await self._unwatch(request, stream)
        except RoomError as error:  # it may be gone
            logger.info("stream not cleaned up", extra={"stream": stream.kind, "reason": str(error)})

    def _take_unreadable(self, request: Request, error: RoomError) -> None:
        """A chunk could not be read, and so it is not known of which stream it was: none that sends can be whole."""
        for stream in list(_OPEN_STREAMS.of(request.peer)):
            if stream.kind in ("upload", "document"):
                _fail(stream, f"a chunk could not be read: {error}", error.code)
                _BROKEN_STREAMS.of(request.peer).append(stream)
        self._ask.unreadable(request, self._other_tools, error)

    def _end(self, stream: Stream) -> None:
        _forget(stream)
        _tell(stream, bodies.close())

    # ---- files ----------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request, stream: Stream, chunk: Header) -> None:
        if bodies.closes(chunk):
            if chunk.get("status_code", bodies.ENDED) != bodies.ENDED:
                raise RoomError("the upload was given up")
            await self._store(request, stream)  # the end of its data
            return
        if stream.handle is None:
            start = chunks.read(chunks.UploadStart, chunk)
            stream.size = start.size
            opening = {"path": start.path, "overwrite": start.overwrite}
            stream.handle = str(json_of(await self._ask(request, "storage.open", opening))["handle"])
        else:
            chunks.read(chunks.Data, chunk)
            data = request.message.payload
            await self._ask(request, "storage.write", {"handle": stream.handle}, data)
            stream.moved += len(data)
        if stream.size is not None and stream.moved >= stream.size:
            await self._store(request, stream)
        else:
            _tell(stream, bodies.binary(kind="pull", chunk_size=_PIECE))

    async def _store(self, request: Request, stream: Stream) -> None:
        if stream.size is not None and stream.moved != stream.size:
            raise RoomError(f"{stream.moved} bytes came of an upload that announced {stream.size}: nothing is stored")
        if stream.handle is not None:
            await self._ask(request, "storage.close", {"handle": stream.handle})
        self._end(stream)

    async def _download(self, request: Request, stream: Stream, chunk: Header) -> None:
        if bodies.closes(chunk):
            _forget(stream)
            return
        if stream.size is None:
            start = chunks.read(chunks.DownloadStart, chunk)
            stream.path = start.path
            stream.piece = min(start.chunk_size or _PIECE, _PIECE)
            file, about = await self._read(request, stream, 0, 0)
            stream.size, stream.version = int(about["size"]), str(about["version"])
            _tell(stream, bodies.binary(kind="start", name=file.name, mime_type=file.mime_type, size=stream.size))
        else:
            chunks.read(chunks.Pull, chunk)
            file, about = await self._read(request, stream, stream.moved, stream.piece)
            if about["version"] != stream.version:
                raise RoomError(f"{stream.path!r} was replaced while it was read: read it again")
            stream.moved += len(file.data)
            _tell(stream, bodies.binary(kind="data"), file.data)
        if stream.moved >= stream.size:
            self._end(stream)

    async def _read(self, request: Request, stream: Stream, start: int, length: int) -> tuple[FileResponse, Header]:
        reading = {"path": stream.path, "start": start, "length": length}
        answer = await self._ask(request, "storage.read", reading)
        assert isinstance(answer, tuple)
        file, about = answer
        assert isinstance(file, FileResponse)
        return file, about

    # ---- documents and the log ------------------------------------------------------------------------------------

    async def _document(self, request: Request, stream: Stream, chunk: Header) -> bool:
        if bodies.closes(chunk):
            if stream.path:
                await self._ask(request, "sync.close", {"path": stream.path})
            self._end(stream)
            return False
        if not stream.path:
            start = chunks.read(chunks.DocumentStart, chunk)
            path = chunks.document_path(start.path)
            if any(other.path == path and other.kind == "document" for other in _OPEN_STREAMS.of(request.peer)):
                raise RoomError(f"{path!r} is open in another stream of this connection: close that one first")
            stream.path = path
            return await self._documents.open(request, path, start)
        chunks.read(chunks.Sync, chunk)
        # A reply of the service says that the edit was refused; the true state follows as an event, which becomes a chunk.
        return await self._ask(request, "sync.update", {"path": stream.path}, request.message.payload) is None

    async def _logs(self, request: Request, stream: Stream, chunk: Header) -> None:
        if bodies.closes(chunk):
            await self._unwatch(request, stream)
            self._end(stream)

    async def _unwatch(self, request: Request, stream: Stream) -> None:
        if not any(other is not stream and other.kind == "logs" for other in _OPEN_STREAMS.of(request.peer)):
            await self._ask(request, "developer.unwatch", {})


def _forget(stream: Stream) -> None:
    stream.is_ended = True
    if stream.peer is not None:
        _OPEN_STREAMS.of(stream.peer).discard(stream)


def _tell(stream: Stream, content: Header, payload: bytes = b"") -> None:
    if stream.peer is not None:
        stream.peer.tell(contents.chunk(stream.call, content, payload))


def _fail(stream: Stream, text: str, code: int | None) -> None:
    _forget(stream)
    _tell(stream, bodies.error(text, code))
    _tell(stream, bodies.close(text))
