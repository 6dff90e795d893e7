"""Built-in tools that are called with a stream of chunks: files up and down, documents, the developer log.

The client opens a stream with a request, and sends each chunk as a request of its own. What a stream has come to is kept in a
`Stream`, which the translator of the connection finds by the id of the call (`translator.py`) and hands to the operations here
with the chunk. They ask the operations of the services for what is to be done, as any client of another dialect would, with
the participant's grants; what the client is to get goes out as chunks. Files are moved by request of the receiving side, a
piece at a time, so neither side has more than a piece in memory, and an upload that breaks off stores nothing.

Chunks of one stream are handled one after the other. An error ends the stream: the client gets it as a chunk, since the Python
client does not look at the answers to its chunks, and the JavaScript client waits for them but takes only empty ones.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.protocol.json_values import dump_json
from meshhost.protocol.messages import EmptyResponse, FileResponse, Header, JsonResponse, Response
from meshhost.server.core.dispatch import Dispatcher, Gatherable
from meshhost.server.core.requests import Answer, Body, Operation, Operations, Request
from meshhost.server.wire.sdk056 import contents

__all__ = ["ADD", "OPEN", "Ask", "BuiltInStreams", "Stream"]

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
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Open(Body):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    stream: Stream


class _Chunk(Body):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    stream: Stream | None = None
    chunk: dict[str, Any]


class Ask:
    """Asks the operations of the services in a participant's name. `operations` are those of the server."""

    def __init__(self, operations: Operations) -> None:
        # The chunk, or the request, is what counts for the tenant's rate and in the metrics.
        self._dispatch = Dispatcher(operations, count=lambda *_: None)

    async def __call__(self, request: Request, operation: str, header: Header, payload: bytes = b"") -> Answer:
        """Return the answer; None when it was given already. Raises RoomError, also for an answer that is an error."""
        message = dataclasses.replace(request.message, header=header, payload=payload)
        inner = dataclasses.replace(request, message=message, operation=operation)
        answer = self._dispatch(inner)
        if isinstance(answer, Gatherable):
            [gathered] = await _many(answer, inner)
            return gathered
        return await answer if isinstance(answer, Coroutine) else answer

    def at_once(self, request: Request, operation: str, header: Header) -> Answer:
        """Return the answer of an operation that does not wait. Raises RoomError."""
        message = dataclasses.replace(request.message, header=header)
        answer = self._dispatch(dataclasses.replace(request, message=message, operation=operation))
        assert not isinstance(answer, Coroutine | Gatherable)
        return answer


async def _many(gatherable: Gatherable, request: Request) -> list[Answer]:
    assert gatherable.operation.run_many is not None
    answers = []
    for each in await gatherable.operation.run_many([(request, gatherable.body)]):
        if isinstance(each, Exception):
            raise each
        answers.append(each)
    return answers


class BuiltInStreams:
    """The operations that streams of built-in tools need."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        # Each handles a chunk, and returns True when a service has replied to it already.
        self._steps: Mapping[str, Callable[[Request, Stream, Header], Awaitable[bool | None]]] = {
            "upload": self._upload,
            "download": self._download,
            "document": self._document,
            "logs": self._logs,
        }

    def operations(self) -> Operations:
        """The operations by name."""
        return {OPEN: Operation(_Open, self._open), ADD: Operation(_Chunk, self._add)}

    def _open(self, request: Request, body: _Open) -> Answer | Coroutine[Any, Any, Answer]:
        return self._watch(request, body.stream) if body.stream.kind == "logs" else contents.OPENED

    async def _watch(self, request: Request, stream: Stream) -> Answer:
        try:
            await self._ask(request, "developer.watch", {})
        except RoomError:
            stream.is_ended = True
            raise
        return contents.OPENED

    async def _add(self, request: Request, body: _Chunk) -> Answer:
        stream = body.stream
        if stream is not None:
            async with stream.lock:
                if not stream.is_ended and await self._step(request, stream, body.chunk):
                    return None
        return EmptyResponse()

    async def _step(self, request: Request, stream: Stream, chunk: Header) -> bool:
        try:
            return bool(await self._steps[stream.kind](request, stream, chunk))
        except RoomError as problem:
            stream.is_ended = True
            if stream.handle is not None:
                with contextlib.suppress(RoomError):  # it may be gone
                    await self._ask(request, "storage.abort", {"handle": stream.handle})
            request.peer.tell(contents.chunk(stream.call, contents.error(problem)))
            request.peer.tell(contents.chunk(stream.call, contents.close(problem)))
            return False

    def _end(self, request: Request, stream: Stream) -> None:
        stream.is_ended = True
        request.peer.tell(contents.chunk(stream.call, contents.close()))

    # ---- files ----------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request, stream: Stream, chunk: Header) -> None:
        if _closes(chunk):
            if chunk.get("status_code", contents.ENDED) != contents.ENDED:
                raise RoomError("the upload was given up")
            await self._store(request, stream)  # the end of its data
            return
        headers = _headers(chunk)
        if stream.handle is None:
            _expect(headers, "start")
            stream.size = _size(headers.get("size"))
            opening = {"path": headers.get("path"), "overwrite": bool(headers.get("overwrite"))}
            stream.handle = str(_json(await self._ask(request, "storage.open", opening))["handle"])
        else:
            _expect(headers, "data")
            data = request.message.payload
            await self._ask(request, "storage.write", {"handle": stream.handle}, data)
            stream.moved += len(data)
        if stream.size is not None and stream.moved >= stream.size:
            await self._store(request, stream)
        else:
            request.peer.tell(contents.chunk(stream.call, contents.binary(kind="pull", chunk_size=_PIECE)))

    async def _store(self, request: Request, stream: Stream) -> None:
        if stream.handle is not None:
            await self._ask(request, "storage.close", {"handle": stream.handle})
        self._end(request, stream)

    async def _download(self, request: Request, stream: Stream, chunk: Header) -> None:
        if _closes(chunk):
            stream.is_ended = True
            return
        headers = _headers(chunk)
        if stream.size is None:
            _expect(headers, "start")
            stream.path = str(headers.get("path"))
            stream.piece = min(_size(headers.get("chunk_size")) or _PIECE, _PIECE)
            file, about = await self._read(request, stream, 0, 0)
            stream.size, stream.version = int(about["size"]), str(about["version"])
            start = contents.binary(kind="start", name=file.name, mime_type=file.mime_type, size=stream.size)
            request.peer.tell(contents.chunk(stream.call, start))
        else:
            _expect(headers, "pull")
            file, about = await self._read(request, stream, stream.moved, stream.piece)
            if about["version"] != stream.version:
                raise RoomError(f"{stream.path!r} was replaced while it was read: read it again")
            stream.moved += len(file.data)
            request.peer.tell(contents.chunk(stream.call, contents.binary(kind="data"), file.data))
        if stream.moved >= stream.size:
            self._end(request, stream)

    async def _read(self, request: Request, stream: Stream, start: int, length: int) -> tuple[FileResponse, Header]:
        reading = {"path": stream.path, "start": start, "length": length}
        answer = await self._ask(request, "storage.read", reading)
        assert isinstance(answer, tuple)
        file, about = answer
        assert isinstance(file, FileResponse)
        return file, about

    # ---- documents and the log ------------------------------------------------------------------------------------

    async def _document(self, request: Request, stream: Stream, chunk: Header) -> bool:
        path = {"path": stream.path}
        if _closes(chunk):
            if stream.path:
                await self._ask(request, "sync.close", path)
            self._end(request, stream)
            return False
        if not stream.path:
            return await self._open_document(request, stream, _headers(chunk))
        _expect(_headers(chunk), "sync")
        # A reply of the service says that the edit was refused; the true state follows as an event, which becomes a chunk.
        return await self._ask(request, "sync.update", path, request.message.payload) is None

    async def _open_document(self, request: Request, stream: Stream, headers: Header) -> bool:
        _expect(headers, "start")
        path = str(headers.get("path") or "")
        while path.startswith(("/", "./")):
            path = path.removeprefix("./").removeprefix("/")
        stream.path = path
        await self._provide_schema(request, path, headers.get("schema"))
        content = headers.get("initial_json")
        if headers.get("create") and isinstance(content, dict):
            try:
                await self._ask(request, "sync.create", {"path": path, "json": content})
            except RoomError as problem:
                if problem.code != _EXISTS:
                    raise
        # The service replies with the schema, and then reports the state: the translator makes one chunk of both.
        opening = {"path": path, "create": bool(headers.get("create"))}
        return await self._ask(request, "sync.open", opening) is None

    async def _provide_schema(self, request: Request, path: str, schema: Any) -> None:
        """Store the schema that the client brings, if the room has none for documents of this kind."""
        if not isinstance(schema, dict):
            return
        where = f".schemas/{path.rpartition('.')[2]}.json"
        if _json(await self._ask(request, "storage.exists", {"path": where}))["exists"]:
            return
        handle = _json(await self._ask(request, "storage.open", {"path": where}))["handle"]
        await self._ask(request, "storage.write", {"handle": handle}, dump_json(schema).encode())
        await self._ask(request, "storage.close", {"handle": handle})

    async def _logs(self, request: Request, stream: Stream, chunk: Header) -> None:
        if _closes(chunk):
            await self._ask(request, "developer.unwatch", {})
            self._end(request, stream)


# The code of AlreadyExistsError.
_EXISTS = 1004


def _closes(chunk: Header) -> bool:
    return chunk.get("type") == "control" and chunk.get("method") == "close"


def _headers(chunk: Header) -> Header:
    headers = chunk.get("headers")
    if chunk.get("type") != "binary" or not isinstance(headers, dict):
        raise InvalidRequestError("chunk", "expected binary content with headers")
    return headers


def _expect(headers: Header, kind: str) -> None:
    if headers.get("kind") != kind:
        raise InvalidRequestError("chunk", f"expected one of the kind {kind!r}")


def _size(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError("chunk", "expected a size of 0 or more bytes")
    return value


def _json(answer: Answer) -> JsonResponse:
    response: Response | None = answer[0] if isinstance(answer, tuple) else answer
    assert isinstance(response, JsonResponse)
    return response
