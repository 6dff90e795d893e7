"""Joins a room, or sends a REST request to its server, as the CLI.

Commands that work in a room call `run_in_room` with a coroutine function. Which server and which key comes from the environment
and the stored project (`server_access`). Errors of the connection are translated here, once, into what the user can do about
it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = [
    "ServerAccess",
    "get_json",
    "joined_room",
    "reason_of",
    "refused",
    "resolve_room",
    "run_in_room",
    "send_json",
    "server_access",
    "server_url",
    "unreachable",
]

T = TypeVar("T")

PARTICIPANT_NAME = "cli"
REST_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """The room server (an http or https URL), and the project and key to use there."""

    api_url: str
    project_id: str
    api_key: str = field(repr=False)


def server_access() -> ServerAccess:
    """Read from the environment and the stored project; the environment wins. Raises SettingsError, InvalidApiKeyError."""
    from meshhost.app.project import api_key_of
    from meshhost.client_settings import read_client_settings
    from meshhost.identity.keys import parse_api_key

    api_key = api_key_of(read_client_settings())
    return ServerAccess(server_url(), parse_api_key(api_key).project_id, api_key)


def server_url() -> str:
    """The http or https URL of the room server, from the environment, else the stored project. Raises SettingsError."""
    from meshhost.app.project import api_url_of
    from meshhost.client_settings import read_client_settings

    api_url = api_url_of(read_client_settings())
    if api_url.startswith("ws"):
        api_url = f"http{api_url.removeprefix('ws')}"
    return _without_credentials(api_url)


class _NoRoomError(typer.BadParameter):
    """No room was given. It is shown without "Invalid value": there is none."""

    def format_message(self) -> str:
        return self.message


def resolve_room(given: str | None) -> str:
    """Return the given room, else MESHHOST_ROOM. Raises BadParameter when there is none, or the name is not allowed."""
    from meshhost.client_settings import read_client_settings
    from meshhost.errors import InvalidRequestError
    from meshhost.identity.tenant import check_room_name

    name = given or read_client_settings().room
    if name is None:
        raise _NoRoomError("no room is named: give --room, or set MESHHOST_ROOM")
    try:
        return check_room_name(name)
    except InvalidRequestError as error:
        raise typer.BadParameter(str(error).removeprefix("room name: "), param_hint="--room") from None


def run_in_room(given: str | None, use: Callable[[RoomClient], Awaitable[T]], *, only_looks: bool = False) -> T:
    """Join the room, run `use` and leave; return what `use` returns. Raises BadParameter and MeshhostError.

    The participant has the token in MESHHOST_TOKEN if there is one, else all rights of a user. With `only_looks` a room that
    sleeps is not woken: no agent is called into it.
    """
    from meshhost.app.project import api_key_of
    from meshhost.cli.log_output import log_for_command
    from meshhost.client_settings import read_client_settings

    log_for_command()
    name, settings = resolve_room(given), read_client_settings()
    given_token = settings.token
    token = _token_of_user(api_key_of(settings), name) if given_token is None else given_token.get_secret_value()

    async def work() -> T:
        async with joined_room(server_url(), name, token=token, only_looks=only_looks) as room:
            return await use(room)

    return asyncio.run(work())


@asynccontextmanager
async def joined_room(
    server: ServerAccess | str, name: str, *, token: str | None = None, only_looks: bool = False
) -> AsyncIterator[RoomClient]:
    """Join the room with the token; yield its client.

    `server` is the URL of a room server, or the access to one: its key then signs a token with all rights of a user, if none is
    given. Raises ConnectionLostError or RoomRefusedError when the room cannot be joined; the text says what to do.
    """
    from meshhost.errors import ConnectionLostError, RoomRefusedError
    from meshhost.room.client import RoomClient
    from meshhost.transport.websocket_client import WebSocketClientProtocol

    if isinstance(server, ServerAccess):
        api_url, token = server.api_url, token or _token_of_user(server.api_key, name)
    else:
        api_url = server
    url = f"{api_url}/rooms/{quote(name)}"
    room = RoomClient(protocol=WebSocketClientProtocol(url=url, token=token or "", only_looks=only_looks))
    room.on("room.status", _show_wait)
    try:
        await room.connect()
    except ConnectionLostError as error:
        raise unreachable(api_url, error.__context__ or error) from None
    except RoomRefusedError as error:
        raise _refused(api_url, error.status, str(error)) from None
    try:
        yield room
    finally:
        await room.close()


def _show_wait(**status: Any) -> None:
    """Say why nothing happens: the room server lets a request wait for an agent that is on its way."""
    from meshhost.cli.output import note

    if status.get("status") == "waiting":
        note(f"meshhost: {status.get('message')}")


def _token_of_user(api_key: str, room: str) -> str:
    from meshhost.identity.signing import FULL_SCOPE, room_token

    return room_token(api_key, room, name=PARTICIPANT_NAME, scope=FULL_SCOPE)


def get_json(access: ServerAccess, path: str, *, timeout: float = REST_TIMEOUT, **query: str | int) -> Any:
    """Return the JSON that the server answers to GET `path`. Raises ConnectionLostError, RoomRefusedError, or RoomError.

    `timeout` is the seconds that the server may be silent.
    """
    return send_json(access.api_url, access.api_key, "GET", path, None, query, timeout=timeout)


def send_json(
    api_url: str,
    bearer: str,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    query: Mapping[str, str | int] | None = None,
    *,
    timeout: float = REST_TIMEOUT,
) -> Any:
    """Return the JSON that the server answers; None for an empty answer. Raises as `get_json` does."""
    from meshhost.cli.rest import ask
    from meshhost.errors import RoomError

    try:
        status, answer = ask(method, f"{api_url}{path}", bearer=bearer, query=query, body=body, timeout=timeout)
    except OSError as error:
        raise unreachable(api_url, error) from None
    if status >= 400:
        raise refused(api_url, status, answer)
    if status >= 300:
        raise RoomError(
            f"{api_url} sends clients elsewhere ({status}): set MESHHOST_API_URL to the URL of the server itself"
        )
    try:
        return json.loads(answer) if answer else None
    except ValueError:
        raise RoomError(f"{api_url} did not answer with JSON: is it a room server?") from None


def _text_of(answer: bytes) -> str:
    """The text of an error that a room server answered with, as JSON with a member `error`; anything else as it is, cut."""
    try:
        parsed = json.loads(answer)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and isinstance(parsed.get("error"), str):
        return str(parsed["error"])
    return answer[:500].decode(errors="replace")


def refused(api_url: str, status: int, answer: bytes) -> Exception:
    """Return the error for a request that the server answered with this status and body."""
    return _refused(api_url, status, f"the room server refused the request ({status}): {_text_of(answer)}")


def unreachable(api_url: str, cause: BaseException) -> Exception:
    """Return the error for a server that could not be reached."""
    from meshhost.errors import ConnectionLostError

    return ConnectionLostError(
        f"cannot reach the room server at {api_url}: start one with `meshhost room serve`, "
        f"or set MESHHOST_API_URL ({reason_of(cause)})"
    )


def _refused(api_url: str, status: int, text: str) -> Exception:
    from meshhost.errors import RoomRefusedError

    if status == 401:
        text += f"; is the API key for another server than {api_url}? see MESHHOST_API_KEY, MESHHOST_TOKEN and MESHHOST_API_URL"
    return RoomRefusedError(text, status=status)


def reason_of(cause: BaseException) -> str:
    """Return in a few words why a connection could not be made."""
    match getattr(cause, "os_error", cause):
        case ConnectionRefusedError():
            return "connection refused"
        case ssl.SSLError() as error:
            return f"TLS: {getattr(error, 'reason', None) or error.strerror}"
        case TimeoutError():
            return "no answer in time"
        case OSError() as error:
            # When several addresses were tried the text lists all their errors; if one was refused, all were.
            return "connection refused" if "Errno 111" in str(error) else error.strerror or str(error)
        case error:
            return str(error) or type(error).__name__


def _without_credentials(url: str) -> str:
    # Requests carry the key or a token instead, and credentials must not appear in the text of an error.
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
