"""HTTP requests of the command line: JSON to room servers and service hosts (`ask`), and files of a room (`Download`).

The standard library is enough for that, and to load aiohttp takes longer than everything else that such a command does. `ask`
blocks, since a command waits for nothing else, and Ctrl-C ends it. A `Download` has a thread, since the loop of a command in a
room reads it. Redirects are not followed: the key is for the server that was named, and must not be sent to another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

__all__ = ["Download", "ask"]

# What a URL may have beside letters and digits. The rest of an address that a person wrote goes as UTF-8, quoted.
_URL_CHARACTERS = "/%:;,=@&+$!*'()~"

T = TypeVar("T")


def ask(
    method: str,
    url: str,
    *,
    bearer: str | None = None,
    query: Mapping[str, str | int] | None = None,
    body: Mapping[str, Any] | None = None,
    timeout: float,
) -> tuple[int, bytes]:
    """Return the status and the content of the answer; `timeout` is the seconds that the server may be silent.

    Raises OSError when the server cannot be reached, is silent for too long or does not answer with HTTP.
    """
    parts = urlsplit(url)
    headers: dict[str, str | bytes] = {"Accept": "application/json"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}".encode()
    content = None
    if body is not None:
        content = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    target = f"{quote(parts.path, _URL_CHARACTERS) or '/'}{f'?{urlencode(query)}' if query else ''}"
    connection = _connection(url, timeout)
    try:
        with _translated():
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
    finally:
        connection.close()


class Download:
    """A file that a server sends; `timeout` is the seconds that it may be silent. Close it, also when `start` failed."""

    def __init__(self, url: str, *, timeout: float) -> None:
        parts = urlsplit(url)
        self._target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._connection = _connection(url, timeout)
        self._answer: http.client.HTTPResponse | None = None
        self._socket: socket.socket | None = None
        # One thread does everything with the connection, one after the other: it is not closed under a read.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="download")
        self._is_closed = False

    async def start(self) -> tuple[int, int | None]:
        """Ask for the file; return the status, and the length if the server says it. Raises OSError."""
        answer = await self._in_thread(self._ask)
        return answer.status, answer.length

    def _ask(self) -> http.client.HTTPResponse:
        self._connection.request("GET", self._target)
        # The connection gives it away when the server is to close it.
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        return self._answer

    async def chunks(self, size: int) -> AsyncGenerator[bytes, None]:
        """The content, in chunks of at most `size` bytes, once it is started. Raises OSError, also when it is cut off."""
        answer = self._answer
        assert answer is not None
        left = answer.length
        while chunk := await self._in_thread(lambda: answer.read1(size)):
            left = None if left is None else left - len(chunk)
            yield chunk
        if left:
            raise ConnectionError("the content was cut off")

    async def _in_thread(self, step: Callable[[], T]) -> T:
        if self._is_closed:
            raise ConnectionAbortedError("the download was closed")
        with _translated():
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    def close(self) -> None:
        """Close the connection, which ends a read in its thread, too: the command that is interrupted waits for that."""
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._is_closed = True
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        self._connection.close()
        if self._answer is not None:  # which has the socket alone when the server is to close the connection
            self._answer.close()


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except http.client.HTTPException as error:
        raise ConnectionError(f"no answer of HTTP: {str(error) or type(error).__name__}") from None
    except UnicodeError:
        raise ConnectionError("no name of a host") from None
