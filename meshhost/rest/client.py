"""`Meshagent`: the REST API of a room server for programs: projects, keys, rooms, sessions, services, mailboxes and the like.

Names, arguments and answers are those of `meshagent.api.client`. What this server does not have is refused by name before
anything is sent. An answer that is no success raises `RestError`, which is an `aiohttp.ClientResponseError`, as programs catch
it, and a RoomError with what the server said. Every request ends within `timeout` seconds; redirects are not followed, because
the key is for the server that was named.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote

import aiohttp

from meshhost.client_settings import read_client_settings
from meshhost.errors import ConnectionLostError, RequestTimeoutError, RoomError
from meshhost.rest.models import (
    KeysSecret,
    Mailbox,
    PullSecret,
    Room,
    RoomConnectionInfo,
    RoomSession,
    Secret,
    read_secret,
)

__all__ = ["Meshagent", "NotFoundError", "RestError", "new_client_session"]

REQUEST_SECONDS = 60.0

# Methods of MeshAgent's client for what only its hosted service has.
_OUT = {
    "billing": (
        "get_pricing",
        "get_balance",
        "get_recent_transactions",
        "set_auto_recharge",
        "get_checkout_url",
        "get_credits_checkout_url",
        "get_subscription",
    ),
    "sharing with other accounts": ("create_share", "delete_share", "update_share", "list_shares", "connect_share"),
    "accounts of people: give each an API key or a login of [studio.oidc]": (
        "add_user_to_project",
        "remove_user_from_project",
        "get_users_in_project",
        "get_user_profile",
        "update_user_profile",
        "update_project_settings",
    ),
    "grants by account: grants are in participant tokens": (
        "create_room_grant",
        "create_room_grant_by_email",
        "update_room_grant",
        "delete_room_grant",
        "get_room_grant",
        "list_room_grants",
        "list_room_grants_by_user",
        "list_room_grants_by_room",
        "list_unique_rooms_with_grants",
        "list_unique_users_with_grants",
    ),
    "clients of OAuth": (
        "create_oauth_client",
        "update_oauth_client",
        "list_oauth_clients",
        "get_oauth_client",
        "delete_oauth_client",
    ),
    "files of projects: use room.storage": ("upload", "download"),
}
_WHY = {name: why for why, names in _OUT.items() for name in names}


class RestError(RoomError, aiohttp.ClientResponseError):
    """The server answered with another status than success: `status`, and what it said as text."""

    def __init__(self, text: str, response: aiohttp.ClientResponse) -> None:
        aiohttp.ClientResponseError.__init__(
            self,
            response.request_info,
            response.history,
            status=response.status,
            message=text,
            headers=response.headers,
        )

    def __str__(self) -> str:
        return self.message


class NotFoundError(RestError):
    """There is no such thing (404)."""


class Meshagent:
    """A client with a bearer `token` (default MESHHOST_API_KEY) of the server at `base_url` (default MESHHOST_API_URL).

    `async with Meshagent() as client`, or `await client.close()` at the end.
    """

    def __init__(
        self, *, base_url: str | None = None, token: str | None = None, timeout: float = REQUEST_SECONDS
    ) -> None:
        settings = read_client_settings()
        self.base_url = (base_url or settings.api_url).rstrip("/")
        key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        self._token = token or key
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def __getattr__(self, name: str) -> Any:
        if name in _WHY:

            async def refuse(*_: Any, **__: Any) -> NoReturn:
                raise RoomError(f"{name}: meshhost does not have {_WHY[name]}")

            return refuse
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # ---- projects and keys ----------------------------------------------------------------------------------------

    async def list_projects(self) -> dict[str, Any]:
        """Return `{"projects": [{"id", "name"}]}`."""
        return await self._object("GET", "/accounts/projects")

    async def get_project(self, project_id: str) -> dict[str, Any]:
        """Return a project. Raises RoomError when the key is not for it."""
        for project in (await self.list_projects())["projects"]:
            if project["id"] == project_id:
                return dict(project)
        raise RoomError(f"no project {project_id!r} that this key is for")

    async def create_api_key(self, project_id: str, name: str, description: str = "") -> dict[str, Any]:
        """Make an API key; its `value` is shown only here."""
        return await self._object("POST", _project(project_id, "api-keys"), {"name": name, "description": description})

    async def list_api_keys(self, project_id: str) -> dict[str, Any]:
        """Return `{"keys": [{"id", "name", "description"}]}`."""
        return await self._object("GET", _project(project_id, "api-keys"))

    async def delete_api_key(self, project_id: str, id: str) -> None:
        """Revoke a key."""
        await self._ask("DELETE", _project(project_id, "api-keys", id))

    async def get_usage(self, project_id: str, **options: Any) -> Any:
        """Return what the project's rooms spent on models."""
        return await self._ask("GET", _project(project_id, "usage"), query=options)

    # ---- rooms ----------------------------------------------------------------------------------------------------

    async def create_room(
        self,
        *,
        project_id: str,
        name: str,
        if_not_exists: bool = False,
        metadata: Mapping[str, Any] | None = None,
        permissions: Any = None,
    ) -> Room:
        """Make a room. Raises RestError (409) when there is one, unless `if_not_exists`."""
        if permissions is not None:
            raise RoomError("permissions: meshhost does not have grants by account: grants are in participant tokens")
        body = {"name": name, "if_not_exists": if_not_exists, "metadata": metadata, "permissions": None}
        return Room.model_validate(await self._ask("POST", _project(project_id, "rooms"), body))

    async def get_room(self, *, project_id: str, name: str) -> Room:
        """Return a room. Raises NotFoundError."""
        return Room.model_validate(await self._ask("GET", _project(project_id, "rooms", name)))

    async def list_rooms(
        self, project_id: str, *, limit: int = 50, offset: int = 0, order_by: str = "room_name", view: str | None = None
    ) -> list[Room]:
        """Return the rooms, in pages. `view` changes nothing: the key of a project sees all of them."""
        query = {"limit": limit, "offset": offset, "order_by": order_by}
        answer = await self._object("GET", _project(project_id, "rooms"), query=query)
        return [Room.model_validate(room) for room in answer["rooms"]]

    async def update_room(
        self, *, project_id: str, room_id: str, name: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Change a room, where the server lets that be done. Raises RestError (501) where it does not."""
        body = {"name": name} if metadata is None else {"name": name, "metadata": dict(metadata)}
        await self._ask("PUT", _project(project_id, "rooms", room_id), body)

    async def delete_room(self, *, project_id: str, room_id: str) -> None:
        """Delete a room and everything in it."""
        await self._ask("DELETE", _project(project_id, "rooms", room_id))

    async def connect_room(self, *, project_id: str, room: str) -> RoomConnectionInfo:
        """Return a token for the room, and where it is joined."""
        answer = await self._ask("POST", _project(project_id, "rooms", room, "connect"), {})
        return RoomConnectionInfo.model_validate(answer)

    async def list_active_sessions(self, project_id: str) -> list[RoomSession]:
        """Return the rooms that are open now."""
        answer = await self._object("GET", _project(project_id, "sessions", "active"))
        return [RoomSession.model_validate(_session(each)) for each in answer["sessions"]]

    async def list_recent_sessions(self, project_id: str) -> list[RoomSession]:
        """Return the rooms that are open now: this server keeps no others."""
        return await self.list_active_sessions(project_id)

    # ---- what is configured ---------------------------------------------------------------------------------------

    async def create_service(self, *, project_id: str, service: Any) -> str:
        """Configure a service by its spec, an object or a pydantic model, and return its id."""
        return str((await self._object("POST", _project(project_id, "services"), _json(service)))["id"])

    async def update_service(self, *, project_id: str, service_id: str, service: Any) -> None:
        """Replace the spec of a service."""
        await self._ask("PUT", _project(project_id, "services", service_id), _json(service))

    async def get_service(self, *, project_id: str, service_id: str) -> dict[str, Any]:
        """Return the spec of a service."""
        return await self._object("GET", _project(project_id, "services", service_id))

    async def list_services(self, *, project_id: str) -> list[dict[str, Any]]:
        """Return the specs of all services."""
        return list((await self._object("GET", _project(project_id, "services")))["services"])

    async def delete_service(self, *, project_id: str, service_id: str) -> None:
        """Take a service out."""
        await self._ask("DELETE", _project(project_id, "services", service_id))

    async def create_webhook(
        self, project_id: str, name: str, url: str, events: Sequence[str], description: str = "", **more: Any
    ) -> dict[str, Any]:
        """Have events of rooms sent to a URL."""
        body = {"name": name, "url": url, "events": list(events), "description": description, **more}
        return await self._object("POST", _project(project_id, "webhooks"), body)

    async def list_webhooks(self, project_id: str) -> dict[str, Any]:
        """Return `{"webhooks": […]}`."""
        return await self._object("GET", _project(project_id, "webhooks"))

    async def delete_webhook(self, project_id: str, webhook_id: str) -> None:
        """Send no more to it."""
        await self._ask("DELETE", _project(project_id, "webhooks", webhook_id))

    async def create_secret(self, *, project_id: str, secret: KeysSecret | PullSecret) -> str:
        """Store a secret, and return its id."""
        body = {"name": secret.name, "type": secret.type, "data": secret.to_payload()}
        return str((await self._object("POST", _project(project_id, "secrets"), body)).get("id", secret.name))

    async def update_secret(self, *, project_id: str, secret: KeysSecret | PullSecret) -> None:
        """Replace the values of a secret."""
        body = {"name": secret.name, "type": secret.type, "data": secret.to_payload()}
        await self._ask("PUT", _project(project_id, "secrets", secret.id), body)

    async def list_secrets(self, project_id: str) -> list[Secret]:
        """Return the secrets; without values, if the server never shows them again."""
        answer = await self._object("GET", _project(project_id, "secrets"))
        return [read_secret(secret) for secret in answer["secrets"]]

    async def delete_secret(self, *, project_id: str, secret_id: str) -> None:
        """Delete a secret."""
        await self._ask("DELETE", _project(project_id, "secrets", secret_id))

    async def create_mailbox(
        self, *, project_id: str, address: str, room: str, queue: str, public: bool | None = None, **more: Any
    ) -> None:
        """Have the mails of an address put into a queue of a room. Raises RestError (409) when it is taken."""
        body = {"address": address, "room": room, "queue": queue, **_given(public=public, **more)}
        await self._ask("POST", _project(project_id, "mailboxes"), body)

    async def update_mailbox(
        self, *, project_id: str, address: str, room: str, queue: str, public: bool | None = None, **more: Any
    ) -> None:
        """Have the mails of an address put into another queue. Raises NotFoundError."""
        body = {"room": room, "queue": queue, **_given(public=public, **more)}
        await self._ask("PUT", _project(project_id, "mailboxes", address), body)

    async def list_mailboxes(self, *, project_id: str) -> list[Mailbox]:
        """Return the mailboxes."""
        answer = await self._object("GET", _project(project_id, "mailboxes"))
        return [Mailbox.model_validate(mailbox) for mailbox in answer["mailboxes"]]

    async def delete_mailbox(self, *, project_id: str, address: str) -> None:
        """Take no more mail for an address. Raises NotFoundError."""
        await self._ask("DELETE", _project(project_id, "mailboxes", address))

    # ---- requests -------------------------------------------------------------------------------------------------

    async def _object(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer = await self._ask(method, path, body, query=query)
        if not isinstance(answer, dict):
            raise RoomError(f"{method} {path}: expected an object as the answer")
        return answer

    async def _ask(self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None) -> Any:
        if self._token is None:
            raise RoomError("no API key: pass token=…, or set MESHHOST_API_KEY")
        if self._session is None:
            self._session = new_client_session(timeout=self._timeout)
        try:
            async with self._session.request(
                method,
                f"{self.base_url}{path}",
                json=body,
                params=None if query is None else {name: str(value) for name, value in _given(**query).items()},
                headers={"Authorization": f"Bearer {self._token}"},
                allow_redirects=False,
            ) as response:
                content = await response.read()
                if not 200 <= response.status < 300:
                    raise _refusal(response, content, f"{method} {path}")
                return await response.json() if content else None
        except TimeoutError:
            raise RequestTimeoutError(f"{method} {path}: no answer within {self._timeout.total:g} s") from None
        except aiohttp.ClientConnectionError as error:
            raise ConnectionLostError(f"{self.base_url} cannot be reached: {error}") from None


def new_client_session(**options: Any) -> aiohttp.ClientSession:
    """Return a session for HTTP requests; the options are aiohttp's. Close it at the end."""
    return aiohttp.ClientSession(**options)


def _refusal(response: aiohttp.ClientResponse, content: bytes, what: str) -> RestError:
    text = content.decode(errors="replace").strip().partition("\n")[0][:500] or (response.reason or "")
    kind = NotFoundError if response.status == 404 else RestError
    return kind(f"{what}: {response.status} {text}", response)


def _project(project_id: str, *parts: str) -> str:
    return "/".join(("/accounts/projects", *(quote(part, safe="@") for part in (project_id, *parts))))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _json(spec: Any) -> Any:
    return spec.model_dump(mode="json", exclude_none=True) if hasattr(spec, "model_dump") else spec


def _session(session: dict[str, Any]) -> dict[str, Any]:
    return {"id": session.get("id") or session.get("session_id") or session["room_name"], **session}
