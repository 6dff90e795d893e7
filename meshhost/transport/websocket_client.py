"""Dials a room over a WebSocket, for `RoomClient`.

`WebSocketClientProtocol` is what MeshAgent programs build; `RoomClient` calls its `connect` again after every loss. A direct
connection is the small one of `client_socket.py`; through a proxy the library's own is used, which knows how to speak to
proxies. Redirects are never followed, and tokens never logged: both would show the token to somebody else.
"""

import asyncio
import contextlib
import functools
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI
from websockets.proxy import get_proxy
from websockets.uri import WebSocketURI, parse_uri

from meshhost.errors import ConnectionLostError, InvalidRequestError, RemoteProtocolError, RoomRefusedError
from meshhost.protocol.connection import LOOK_HEADER, NO_RESUME, RESUME_HEADER
from meshhost.transport.base import close_reason
from meshhost.transport.client_socket import ClientSocket, Timeouts, open_socket

__all__ = ["WebSocketClientProtocol", "WebSocketTransport"]

# A larger frame than any server we know sends (room-protocol §1: MeshAgent clients drop the connection at 4 MiB).
MAX_FRAME_BYTES = 8 * 1024 * 1024
OPEN_TIMEOUT = 15.0
# A half-open connection, which brings a worker no messages, is noticed within the sum of these two: under 15 s. A server that
# is busy for less than PONG_TIMEOUT keeps its clients.
HEARTBEAT = 7.0
PONG_TIMEOUT = 7.0
CLOSE_TIMEOUT = 5.0
SEND_TIMEOUT = 60.0
# How long the environment's proxy settings are remembered: reading them costs a third of a connection.
_PROXY_SECONDS = 30.0

# The library logs whole handshakes at DEBUG, and they carry the token.
_wire_logger = logging.getLogger(f"{__name__}.wire")
_wire_logger.setLevel(logging.INFO)


class WebSocketClientProtocol:
    """The address of a room and the token to join it with.

    `url` is the room's WebSocket URL (http and https are taken as ws and wss), `token` the participant token as JWT text,
    `heartbeat` the seconds of silence before a ping, `send_timeout` the seconds that a server may take nothing. A client that
    `only_looks` does not wake a room that sleeps. One object may dial any number of times.
    """

    def __init__(
        self,
        *,
        url: str,
        token: str,
        heartbeat: float = HEARTBEAT,
        send_timeout: float = SEND_TIMEOUT,
        only_looks: bool = False,
    ) -> None:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        if scheme not in {"ws", "wss"} or not parts.hostname:
            raise InvalidRequestError("url", "expected a room URL such as ws://127.0.0.1:8080/rooms/name")
        self._url = parts._replace(scheme=scheme).geturl()
        self._token = token
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout
        self._only_looks = only_looks

    def __repr__(self) -> str:
        return f"<WebSocketClientProtocol {self._url}>"

    @property
    def url(self) -> str:
        """The room's WebSocket URL."""
        return self._url

    @property
    def token(self) -> str:
        """The participant token as JWT text."""
        return self._token

    def create_factory(self) -> "Callable[[], WebSocketClientProtocol]":
        """Return a function that returns this object: the `protocol_factory` of newer MeshAgent programs."""
        return lambda: self

    def renew(self, token: str) -> None:
        """Use this token from the next connection on."""
        self._token = token

    async def connect(self, *, resume: str | None = None) -> "ClientSocket | WebSocketTransport":
        """Dial. Raises RoomRefusedError with the HTTP status, ConnectionLostError when the server cannot be reached."""
        headers = {"Authorization": f"Bearer {self._token}", RESUME_HEADER: resume or NO_RESUME}
        if self._only_looks:
            headers[LOOK_HEADER] = "1"
        try:
            uri = parse_uri(self._url)
            if _proxy(uri.secure, uri.host, uri.port, int(time.monotonic() / _PROXY_SECONDS)) is None:
                return await self._dial(uri, headers)
            return await self._dial_by_proxy(headers)
        except InvalidStatus as error:
            raise _refusal(error) from None
        except InvalidURI:
            raise InvalidRequestError("url", "not a WebSocket URL") from None
        except (OSError, TimeoutError, websockets.WebSocketException, EOFError) as error:
            raise ConnectionLostError(
                f"cannot reach the room server at {_origin(self._url)}: {_cause(error)}"
            ) from None

    async def _dial(self, uri: WebSocketURI, headers: dict[str, str]) -> ClientSocket:
        async with asyncio.timeout(OPEN_TIMEOUT):
            return await open_socket(
                uri,
                headers,
                ssl=_tls() if uri.secure else None,
                max_frame_bytes=MAX_FRAME_BYTES,
                timeouts=Timeouts(
                    heartbeat=self._heartbeat, pong=PONG_TIMEOUT, send=self._send_timeout, close=CLOSE_TIMEOUT
                ),
                logger=_wire_logger,
            )

    async def _dial_by_proxy(self, headers: dict[str, str]) -> "WebSocketTransport":
        """Dial with the library's own connection, which can speak to proxies."""
        return WebSocketTransport(
            await _Connect(
                self._url,
                additional_headers=headers,
                compression=None,
                max_size=MAX_FRAME_BYTES,
                open_timeout=OPEN_TIMEOUT,
                ping_interval=self._heartbeat,
                ping_timeout=PONG_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                logger=_wire_logger,
            ),
            send_timeout=self._send_timeout,
        )


@functools.lru_cache(maxsize=256)
def _proxy(secure: bool, host: str, port: int, moment: int) -> str | None:
    """Return the proxy that the environment names for this server. `moment` is a part of the cache's key: it limits the age."""
    return get_proxy(WebSocketURI(secure=secure, host=host, port=port, path="/", query=""))


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # Loading the certificates of the system takes longer than a connection.
    return ssl.create_default_context()


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: the token is for the server that was named."""
        return exc


class WebSocketTransport:
    """An open client connection through a proxy. See `Transport`."""

    def __init__(self, connection: ClientConnection, *, send_timeout: float = SEND_TIMEOUT) -> None:
        self._connection = connection
        self._send_timeout = send_timeout
        self._sending = asyncio.Lock()

    async def receive(self) -> bytes:
        """Return the next packet. Raises ConnectionLostError, or RemoteProtocolError for a text frame."""
        with self._connection_errors():
            packet = await self._connection.recv()
        if isinstance(packet, str):
            raise RemoteProtocolError("a text frame: only binary frames are legal", close_code=1003)
        return packet

    async def send(self, packets: Iterable[bytes]) -> None:
        """Send these packets contiguously. Raises ConnectionLostError, also when the other side takes nothing any more."""
        with self._connection_errors():
            async with asyncio.timeout(self._send_timeout), self._sending:
                for packet in packets:
                    await self._connection.send(packet)

    def send_at_once(self, packets: Iterable[bytes]) -> bool:
        """Return False: the library can only send with a wait."""
        return False

    def flush(self) -> None:
        """Nothing is kept back."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order, within CLOSE_TIMEOUT."""
        with contextlib.suppress(OSError, websockets.WebSocketException):
            await self._connection.close(code, close_reason(reason))

    def abort(self) -> None:
        """Cut the connection."""
        self._connection.transport.abort()

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except ConnectionClosed as error:
            received = error.rcvd
            raise ConnectionLostError(
                f"the connection to the room ended{f': {received.reason}' if received and received.reason else ''}",
                clean=received is not None,
                close_code=received.code if received else None,
            ) from None
        except TimeoutError:
            raise ConnectionLostError(f"the room server took no data for {self._send_timeout:g} s") from None
        except OSError as error:
            raise ConnectionLostError(f"the connection to the room was lost: {_cause(error)}") from None


def _refusal(error: InvalidStatus) -> RoomRefusedError:
    status = error.response.status_code
    body = _reason(error.response.body or b"")[:500].strip()
    return RoomRefusedError(
        f"the room server refused the connection ({status}){f': {body}' if body else ''}", status=status
    )


def _reason(body: bytes | bytearray) -> str:
    """What a refusal says: our servers put it into a JSON object, a proxy before them may not."""
    try:
        told = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    reason = told.get("error") if isinstance(told, dict) else None
    return reason if isinstance(reason, str) else body.decode(errors="replace")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
