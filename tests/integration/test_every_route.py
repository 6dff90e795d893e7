"""Every route with every kind of credential, generated from the route tables: a route that is missing here fails.

`Group` says what each kind of credential gets. A new route needs a line in ROOM_SERVER or HOST, which is the moment to decide
who may use it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.identity.tokens import ParticipantToken
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import running_server

ADMIN_KEY = "admin-key"
OPEN = "served"  # neither 401 nor 403 nor a failure of the server; what else depends on the request
CREDENTIALS = ("none", "garbage", "expired", "other token", "other key", "own token", "own key")


def group(**special: int | str) -> Mapping[str, int | str]:
    """401 for all credentials but those named; `_` in a name stands for a space."""
    return dict.fromkeys(CREDENTIALS, 401) | {name.replace("_", " "): status for name, status in special.items()}


PUBLIC = dict.fromkeys(CREDENTIALS, OPEN)
# The tenant comes from the key, so another tenant's project does not exist.
PROJECT = group(own_key=OPEN, other_key=404)
# A key of another tenant sees its own projects.
PROJECTS = group(own_key=OPEN, other_key=OPEN)
# Tenants are managed with the operator's key, which none of these is; test_tenants_rest.py tries it.
OPERATOR = group(own_key=403, other_key=403)
# The token of another tenant leads into that tenant's own room of the same name.
ROOM = group(own_token=OPEN, other_token=OPEN)
# Also for keys, each in a room of its own tenant.
OF_ROOM = group(own_token=OPEN, other_token=OPEN, own_key=OPEN, other_key=OPEN)
GATEWAY = group(own_token=OPEN, other_token=OPEN)
# The credential is the signed token in the path, which is none of these.
FILE = group()
# For programs of this machine, as which the test asks; the rest is in rooms/test_rest.py.
LOGIN = PUBLIC
ADMIN = group(own_key=OPEN)
# Signed calls only: no bearer opens them.
CALL = group()

P = "/accounts/projects/{project}"
ROOM_SERVER: Mapping[tuple[str, str], Mapping[str, int | str]] = {
    ("GET", "/"): PUBLIC,
    ("GET", "/livez"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/rooms/{room}"): ROOM,
    ("GET", "/files/{token}"): FILE,
    ("GET", "/accounts/projects"): PROJECTS,
    ("POST", f"{P}/api-keys"): PROJECT,
    ("GET", f"{P}/api-keys"): PROJECT,
    ("DELETE", f"{P}/api-keys/{{id}}"): PROJECT,
    ("POST", f"{P}/rooms"): PROJECT,
    ("GET", f"{P}/rooms"): PROJECT,
    ("GET", f"{P}/rooms/{{name}}"): PROJECT,
    ("DELETE", f"{P}/rooms/{{id}}"): PROJECT,
    ("POST", f"{P}/rooms/{{name}}/connect"): PROJECT,
    ("GET", f"{P}/rooms/{{name}}/calls"): PROJECT,
    ("GET", f"{P}/sessions/active"): PROJECT,
    ("GET", f"{P}/usage"): PROJECT,
    ("POST", f"{P}/rooms/{{name}}/scheduled-tasks"): PROJECT,
    ("GET", f"{P}/scheduled-tasks"): PROJECT,
    ("PUT", f"{P}/scheduled-tasks/{{id}}"): PROJECT,
    ("DELETE", f"{P}/scheduled-tasks/{{id}}"): PROJECT,
    ("GET", f"{P}/scheduled-tasks/{{id}}/runs"): PROJECT,
    ("POST", "/rooms/{room}/queues/{queue}/messages"): OF_ROOM,
    ("GET", "/schedules"): PROJECTS,
    ("POST", "/rooms/{room}/schedules"): OF_ROOM,
    ("GET", "/rooms/{room}/schedules"): OF_ROOM,
    ("GET", "/rooms/{room}/schedules/{id}"): OF_ROOM,
    ("PATCH", "/rooms/{room}/schedules/{id}"): OF_ROOM,
    ("DELETE", "/rooms/{room}/schedules/{id}"): OF_ROOM,
    ("POST", "/rooms/{room}/schedules/{id}/run"): OF_ROOM,
    ("POST", "/hooks/{id}"): PUBLIC,
    ("POST", "/rooms/{room}/hooks"): OF_ROOM,
    ("GET", "/rooms/{room}/hooks"): OF_ROOM,
    ("GET", "/rooms/{room}/hooks/{id}"): OF_ROOM,
    ("DELETE", "/rooms/{room}/hooks/{id}"): OF_ROOM,
    ("POST", "/rooms/{room}/hooks/{id}/secret"): OF_ROOM,
    ("POST", "/rooms/{room}/hooks/{id}/test"): OF_ROOM,
    ("*", f"{P}/{{what}}"): PROJECT,
    ("*", f"{P}/{{what}}/{{rest}}"): PROJECT,
    ("POST", "/tenants"): OPERATOR,
    ("GET", "/tenants"): OPERATOR,
    ("GET", "/tenants/{tenant}"): PROJECT,
    ("PATCH", "/tenants/{tenant}"): OPERATOR,
    ("PATCH", "/tenants/{tenant}/quota"): OPERATOR,
    ("DELETE", "/tenants/{tenant}"): OPERATOR,
    ("DELETE", "/tenants/{tenant}/rooms/{room_name}"): PROJECT,
    ("GET", "/tenants/{tenant}/archive"): OPERATOR,
    ("PUT", "/tenants/{tenant}/archive"): OPERATOR,
    ("GET", "/tenants/{tenant}/rooms/{room_name}/archive"): PROJECT,
    ("PUT", "/tenants/{tenant}/rooms/{room_name}/archive"): PROJECT,
    ("POST", "/tenants/{tenant}/suspend"): OPERATOR,
    ("POST", "/tenants/{tenant}/resume"): OPERATOR,
    ("GET", "/tenants/{tenant}/keys"): PROJECT,
    ("POST", "/tenants/{tenant}/keys"): PROJECT,
    ("DELETE", "/tenants/{tenant}/keys/{id}"): PROJECT,
    ("GET", "/oauth/authorize"): LOGIN,
    ("POST", "/oauth/authorize"): LOGIN | dict.fromkeys(CREDENTIALS, 403),
    ("POST", "/oauth/token"): LOGIN,
    ("*", "/rooms/{room}/v1/{path}"): GATEWAY,
}
HOST: Mapping[tuple[str, str], Mapping[str, int | str]] = {
    ("GET", "/"): PUBLIC,
    ("GET", "/livez"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/.well-known/meshhost-service.json"): PUBLIC,
    ("GET", "/.well-known/meshagent-service.json"): PUBLIC,
    ("GET", "/agents"): ADMIN,
    ("GET", "/agents/logs"): ADMIN,
    ("GET", "/agents/{id}"): ADMIN,
    ("DELETE", "/agents/{id}"): ADMIN,
    ("GET", "/tenants"): ADMIN,
    ("POST", "/tenants/{tenant}/freeze"): ADMIN,
    ("POST", "/tenants/{tenant}/thaw"): ADMIN,
    ("POST", "/quarantine/release"): ADMIN,
    ("POST", "/drain"): ADMIN,
    ("POST", "/{path}"): CALL,
    ("GET", "/{path}"): CALL,
}


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of every route; HEAD is GET's."""
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return {(method, path) for method, path in found if method != "HEAD"}


async def wrong(
    http: aiohttp.ClientSession,
    url: str,
    table: Mapping[tuple[str, str], Mapping[str, int | str]],
    credentials: Mapping[str, str | None],
    parameters: Mapping[str, str],
    **options: Any,
) -> list[str]:
    """What was answered other than the table says."""
    found = []
    for (method, path), expected in table.items():
        for name in CREDENTIALS:
            bearer = credentials[name]
            headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
            verb = "POST" if method == "*" else method
            target = url + path.format_map(parameters)
            async with http.request(verb, target, headers=headers | options.get("headers", {}), json={}) as answer:
                status = answer.status
            wanted = expected[name]
            right = status not in {401, 403} and (status < 500 or status == 501) if wanted == OPEN else status == wanted
            if not right:
                found.append(f"{method} {path} with {name}: {status}, expected {wanted}")
    return found


async def test_every_route_of_the_room_server(tmp_path: Path) -> None:
    other = new_api_key("99999999-2222-3333-4444-555555555555")
    async with running_server(tmp_path, other_keys=[other]) as server, aiohttp.ClientSession() as http:
        app = server.server.parts.app
        assert routes_of(app) == set(ROOM_SERVER)
        past = datetime.now(UTC) - timedelta(minutes=1)
        credentials = {
            "none": None,
            "garbage": "x.y.z",
            "expired": server.token("room", expiration=past),
            "other token": _token(encode_api_key(other)),
            "other key": encode_api_key(other),
            "own token": server.token("room"),
            "own key": server.api_key,
        }
        parameters = {
            "project": server.key.project_id,
            "tenant": server.key.project_id,
            "room": "room",
            "queue": "jobs",
            "name": "room",
            "id": "none",
            "room_name": "gone",
            "token": "x",
        }
        parameters |= {"what": "services", "rest": "more", "path": "files"}
        assert await wrong(http, server.url, ROOM_SERVER, credentials, parameters) == []

        headers = {"Authorization": f"Bearer {encode_api_key(other)}"}
        async with http.get(f"{server.url}/accounts/projects", headers=headers) as answer:
            assert server.key.project_id not in await answer.text()


async def test_every_route_of_the_service_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_ADMIN_KEY", ADMIN_KEY)
    host = ServiceHost(port=0, webhook_secret="secret", allowed_room_urls=["http://localhost"])
    host.add_path("/agent", cls=QuietAgent)
    app = host.parts.http.application()
    assert routes_of(app) == set(HOST)
    await host.start()
    try:
        key = encode_api_key(new_api_key("99999999-2222-3333-4444-555555555555"))
        credentials = dict.fromkeys(CREDENTIALS, "x.y.z") | {
            "none": None,
            "other token": _token(key),
            "other key": key,
            "own key": ADMIN_KEY,
        }
        parameters = {"id": "none", "tenant": "t", "path": "agent"}
        # `Upgrade` makes a GET of a path a call over a WebSocket; without it the answer is 405.
        options = {"headers": {"Upgrade": "websocket"}}
        table = {route: expected for route, expected in HOST.items() if route != ("POST", "/drain")}
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{host.port}"
            assert await wrong(http, url, table, credentials, parameters, **options) == []
            drain = {("POST", "/drain"): HOST["POST", "/drain"]}
            assert await wrong(http, url, drain, credentials, parameters) == []
    finally:
        await host.stop()


def _token(key: str) -> str:
    token = ParticipantToken(name="tester")
    token.add_room_grant("room")
    token.version = "0.5.3"  # has an agent's scope
    return token.to_jwt(api_key=key)
