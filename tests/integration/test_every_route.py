"""Every route with every kind of credential, generated from the route tables: a route that is missing here fails.

`Group` says what each kind of credential gets. A new route needs a line in ROOM_SERVER or HOST, which is the moment to decide
who may use it. What people of a tenant may do by their roles is here as VIEW, DEVELOP and MANAGE; that the server's own table
of roles has every route, and that each role includes the one below it, is in rooms/test_tenants_rest.py.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import encode_api_key, new_api_key, parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantToken
from meshhost.identity.webhooks import MAX_AGE_SECONDS, sign_webhook
from meshhost.server.core.participants import Participant
from meshhost.server.http.sessions import CSRF_HEADER
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer, running_server

Group = Mapping[str, int | str]
Headers = Mapping[str, str]

ADMIN_KEY = "admin-key"
OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
SECRET = "webhook-secret-of-more-than-32-characters"
OPEN = "served"  # neither 401 nor 403 nor a failure of the server; what else depends on the request

# --- What a room server gives to whom

# Of the tenant: its key of the role admin (own key), of the others, a login, a token for this room and for another one.
OWN = ("own key", "developer key", "viewer key", "login", "own token", "viewer token", "other room token", "file token")
OTHERS = ("other key", "other token", "operator key", "suspended key", "suspended token")
NOBODY = ("none", "garbage", "not bearer", "expired token", "unsigned token", "revoked key", "revoked token")
# Of Studio: sessions of keys, and requests with a session's cookie that other pages could make.
SESSIONS = (
    "own session",
    "developer session",
    "viewer session",
    "other session",
    "operator session",
    "suspended session",
)
FORGED = ("session without its value", "session from elsewhere")
CREDENTIALS = (*OWN, *OTHERS, *NOBODY, *SESSIONS, "revoked session", *FORGED)


def group(**special: int | str) -> Group:
    """401 for all credentials but those named; `_` in a name stands for a space."""
    return dict.fromkeys((*OWN, *OTHERS, *NOBODY), 401) | {
        name.replace("_", " "): status for name, status in special.items()
    }


PUBLIC = dict.fromkeys((*OWN, *OTHERS, *NOBODY), OPEN)
# A suspended tenant is told so. The tenant comes from the key, so another tenant's project does not exist.
MANAGE = group(own_key=OPEN, login=OPEN, developer_key=403, viewer_key=403, other_key=404, suspended_key=403)
DEVELOP = MANAGE | {"developer key": OPEN}
VIEW = DEVELOP | {"viewer key": OPEN}
# A key of another tenant sees its own projects.
PROJECTS = VIEW | {"other key": OPEN}
# A tenant at its name or id; the operator's key opens all.
TENANT_VIEW, TENANT_MANAGE = VIEW | {"operator key": OPEN}, MANAGE | {"operator key": OPEN}
OPERATOR = dict.fromkeys((*OWN, *OTHERS, *NOBODY), 401) | {
    **dict.fromkeys(("own key", "login", "developer key", "viewer key", "other key", "suspended key"), 403),
    "operator key": OPEN,
}
# The token of another tenant leads into that tenant's own room of the same name.
ROOM = group(own_token=OPEN, other_token=OPEN, other_room_token=403, viewer_token=403, suspended_token=403)
GATEWAY = ROOM
# Also for keys, each in a room of its own tenant. An unknown thing of the room is not found by those who may look for it.
ROOM_VIEW = (
    ROOM
    | {name: VIEW[name] for name in ("own key", "login", "developer key", "viewer key", "suspended key")}
    | {"other key": OPEN}
)
ROOM_DEVELOP = ROOM_VIEW | {"viewer key": 403}
# Only with a key itself: a link lasts as long as its key.
LINK = group(own_key=OPEN, developer_key=OPEN, other_key=OPEN, operator_key=OPEN) | dict.fromkeys(
    ("viewer key", "login", "suspended key"), 403
)
# The credential is the signed token in the path, which is none of these.
FILE = group()
# What other pages can make a browser ask for tells them nothing and signs nobody in.
SIGN_IN: Group = {**PUBLIC, "session from elsewhere": 403}
# For programs of this machine, as which the test asks; the rest is in rooms/test_rest.py.
LOGIN = PUBLIC

P = "/accounts/projects/{project}"
SERVICES_OF = (P, f"{P}/rooms/{{room}}")
ROOM_SERVER: Mapping[tuple[str, str], Group] = {
    ("GET", "/"): PUBLIC,
    ("GET", "/livez"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/rooms/{room}"): ROOM,
    ("GET", "/link"): LINK,
    ("GET", "/files/{token}"): FILE,
    ("GET", "/rooms/{room}/queues"): ROOM_VIEW,
    ("GET", "/rooms/{room}/queue-series"): ROOM_VIEW,
    ("GET", "/rooms/{room}/queues/{queue}/series"): ROOM_VIEW,
    ("GET", "/rooms/{room}/queues/{queue}/messages"): ROOM_VIEW,
    ("GET", "/rooms/{room}/queues/{queue}/messages/{id}"): ROOM_VIEW,
    ("GET", "/rooms/{room}/queues/{queue}/messages/{id}/body"): ROOM_DEVELOP,
    ("GET", "/rooms/{room}/queues/{queue}/messages/{id}/result"): ROOM_VIEW,
    ("DELETE", "/rooms/{room}/queues/{queue}/messages/{id}"): ROOM_DEVELOP,
    ("GET", "/rooms/{room}/queues/{queue}/settings"): ROOM_VIEW,
    ("PATCH", "/rooms/{room}/queues/{queue}/settings"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/queues/{queue}/pause"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/queues/{queue}/resume"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/queues/{queue}/purge"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/queues/{queue}/replay"): ROOM_DEVELOP,
    ("GET", "/accounts/projects"): PROJECTS,
    ("POST", f"{P}/api-keys"): MANAGE,
    ("GET", f"{P}/api-keys"): VIEW,
    ("DELETE", f"{P}/api-keys/{{id}}"): MANAGE,
    ("POST", f"{P}/rooms"): DEVELOP,
    ("GET", f"{P}/rooms"): VIEW,
    ("GET", f"{P}/rooms/{{name}}"): VIEW,
    ("PUT", f"{P}/rooms/{{id}}"): DEVELOP,
    ("DELETE", f"{P}/rooms/{{id}}"): DEVELOP,
    ("GET", f"{P}/rooms/{{name}}/status"): VIEW,
    ("POST", f"{P}/rooms/{{name}}/connect"): DEVELOP,
    ("GET", f"{P}/rooms/{{name}}/calls"): VIEW,
    ("GET", f"{P}/sessions/active"): VIEW,
    ("POST", f"{P}/mailboxes"): DEVELOP,
    ("GET", f"{P}/mailboxes"): VIEW,
    ("GET", f"{P}/mailboxes/{{address}}"): VIEW,
    ("PUT", f"{P}/mailboxes/{{address}}"): DEVELOP,
    ("DELETE", f"{P}/mailboxes/{{address}}"): DEVELOP,
    ("GET", f"{P}/mailboxes/{{address}}/deliveries"): VIEW,
    ("GET", f"{P}/rooms/{{name}}/mailboxes"): VIEW,
    ("POST", f"{P}/secrets"): MANAGE,
    ("GET", f"{P}/secrets"): VIEW,
    ("PUT", f"{P}/secrets/{{id}}"): MANAGE,
    ("DELETE", f"{P}/secrets/{{id}}"): MANAGE,
    **{(method, f"{where}/services"): DEVELOP for where in SERVICES_OF for method in ("GET", "POST")},
    **{(method, f"{where}/services/{{id}}"): DEVELOP for where in SERVICES_OF for method in ("GET", "PUT", "DELETE")},
    **{("GET", f"{where}/services/by-name/{{id}}"): DEVELOP for where in SERVICES_OF},
    **{(method, f"{P}/webhooks"): DEVELOP for method in ("GET", "POST")},
    **{(method, f"{P}/webhooks/{{id}}"): DEVELOP for method in ("GET", "PUT", "DELETE")},
    ("GET", f"{P}/usage"): VIEW,
    ("GET", f"{P}/queue-series"): VIEW,
    ("POST", f"{P}/rooms/{{name}}/scheduled-tasks"): DEVELOP,
    ("GET", f"{P}/scheduled-tasks"): VIEW,
    ("PUT", f"{P}/scheduled-tasks/{{id}}"): DEVELOP,
    ("DELETE", f"{P}/scheduled-tasks/{{id}}"): DEVELOP,
    ("GET", f"{P}/scheduled-tasks/{{id}}/runs"): VIEW,
    ("POST", "/rooms/{room}/queues/{queue}/messages"): ROOM_DEVELOP,
    ("GET", "/rooms/{room}/voice/{agent}"): ROOM,
    **{(method, "/rooms/{room}/mcp"): ROOM_DEVELOP for method in ("POST", "GET", "DELETE")},
    ("GET", "/schedules"): PROJECTS,
    ("POST", "/schedules/preview"): PROJECTS,
    ("POST", "/rooms/{room}/schedules"): ROOM_DEVELOP,
    ("GET", "/rooms/{room}/schedules"): ROOM_VIEW,
    ("GET", "/rooms/{room}/schedules/{id}"): ROOM_VIEW,
    ("PATCH", "/rooms/{room}/schedules/{id}"): ROOM_DEVELOP,
    ("DELETE", "/rooms/{room}/schedules/{id}"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/schedules/{id}/run"): ROOM_DEVELOP,
    ("POST", "/hooks/{id}"): PUBLIC,
    ("POST", "/rooms/{room}/hooks"): ROOM_DEVELOP,
    ("GET", "/rooms/{room}/hooks"): ROOM_DEVELOP,
    ("GET", "/rooms/{room}/hooks/{id}"): ROOM_DEVELOP,
    ("DELETE", "/rooms/{room}/hooks/{id}"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/hooks/{id}/secret"): ROOM_DEVELOP,
    ("POST", "/rooms/{room}/hooks/{id}/test"): ROOM_DEVELOP,
    ("*", f"{P}/{{what}}"): VIEW,
    ("*", f"{P}/{{what}}/{{rest}}"): VIEW,
    ("POST", "/tenants"): OPERATOR,
    ("GET", "/tenants"): OPERATOR,
    ("GET", "/tenants/{tenant}"): TENANT_VIEW,
    ("PATCH", "/tenants/{tenant}"): OPERATOR,
    ("PATCH", "/tenants/{tenant}/quota"): OPERATOR,
    ("DELETE", "/tenants/{tenant}"): OPERATOR,
    ("DELETE", "/tenants/{tenant}/rooms/{room_name}"): TENANT_MANAGE,
    ("GET", "/tenants/{tenant}/archive"): OPERATOR,
    ("PUT", "/tenants/{tenant}/archive"): OPERATOR,
    ("GET", "/tenants/{tenant}/rooms/{room_name}/archive"): TENANT_MANAGE,
    ("PUT", "/tenants/{tenant}/rooms/{room_name}/archive"): TENANT_MANAGE,
    ("POST", "/tenants/{tenant}/suspend"): OPERATOR,
    ("POST", "/tenants/{tenant}/resume"): OPERATOR,
    ("GET", "/tenants/{tenant}/keys"): TENANT_VIEW,
    ("POST", "/tenants/{tenant}/keys"): TENANT_MANAGE,
    ("DELETE", "/tenants/{tenant}/keys/{id}"): TENANT_MANAGE,
    ("GET", "/overview"): VIEW | {"other key": OPEN, "operator key": OPEN},
    ("GET", "/rooms/{room}/events"): PROJECTS,
    ("GET", "/rooms/{room}/log"): DEVELOP | {"other key": OPEN},
    ("GET", "/rooms/{room}/traces"): DEVELOP | {"other key": OPEN},
    ("GET", "/rooms/{room}/traces/{trace}"): DEVELOP | {"other key": OPEN},
    ("GET", "/usage"): OPERATOR,
    ("GET", "/hosts"): OPERATOR,
    ("GET", "/hosts/{host}/{path}"): OPERATOR,
    ("POST", "/hosts/{host}/{path}"): OPERATOR,
    ("DELETE", "/hosts/{host}/{path}"): OPERATOR,
    ("GET", "/search"): VIEW | {"other key": OPEN, "operator key": OPEN},
    ("GET", "/studio"): PUBLIC,
    ("GET", "/studio/{rest}"): PUBLIC,
    ("GET", "/studio/static/{version}/{path}"): PUBLIC,
    ("GET", "/studio/api/session"): SIGN_IN,
    ("POST", "/studio/api/session"): SIGN_IN,
    ("GET", "/studio/api/oidc/start"): PUBLIC,
    ("GET", "/studio/api/oidc/callback"): PUBLIC,
    ("POST", "/studio/api/link"): VIEW | {"other key": OPEN, "operator key": OPEN},
    ("POST", "/studio/api/rooms/{room}/token"): DEVELOP | {"other key": OPEN},
    ("GET", "/oauth/authorize"): LOGIN,
    ("POST", "/oauth/authorize"): {**dict.fromkeys(CREDENTIALS, 403), "session from elsewhere": 404},
    ("POST", "/oauth/token"): LOGIN,
    ("POST", "/oauth/register"): PUBLIC,
    ("GET", "/.well-known/oauth-authorization-server"): PUBLIC,
    ("GET", "/.well-known/oauth-protected-resource/rooms/{room}/mcp"): PUBLIC,
    ("*", "/rooms/{room}/v1/{path}"): GATEWAY,
    # The last: it signs out.
    ("DELETE", "/studio/api/session"): SIGN_IN | dict.fromkeys(FORGED, 403),
}

# --- What a service host gives to whom

HOST_CREDENTIALS = (
    *("none", "garbage", "not bearer", "room token", "API key", "admin key"),
    *("signature", "signature of another secret", "old signature", "signature of another body"),
)
ANYBODY = dict.fromkeys(HOST_CREDENTIALS, OPEN)
# Neither does a signature open what the admin key does, nor the reverse.
ADMIN = dict.fromkeys(HOST_CREDENTIALS, 401) | {"admin key": OPEN}
CALL = dict.fromkeys(HOST_CREDENTIALS, 401) | {"signature": OPEN}

HOST: Mapping[tuple[str, str], Group] = {
    ("GET", "/"): ANYBODY,
    ("GET", "/livez"): ANYBODY,
    ("GET", "/readyz"): ANYBODY,
    ("GET", "/metrics"): ANYBODY,
    ("GET", "/.well-known/meshhost-service.json"): ANYBODY,
    ("GET", "/.well-known/meshagent-service.json"): ANYBODY,
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
# Without keys and secrets a host serves programs of its machine only.
STRANGERS: Mapping[str, Headers] = {
    "a proxy": {"X-Forwarded-For": "10.0.0.1"},
    "a proxy that says so": {"Via": "1.1 proxy"},
    "a page": {"Origin": "http://evil.example"},
    "another name": {"Host": "evil.example"},
}


def with_sessions(expected: Group) -> Group:
    """What sessions get: the same as their keys. The operator's is told that it may not, where its key is not known at all."""
    takes_keys = expected["own key"] != 401
    by_key = {name: expected[name.replace("session", "key")] for name in (*SESSIONS, "revoked session")}
    if takes_keys and by_key["operator session"] == 401:
        by_key["operator session"] = 403
    is_public = expected["none"] == OPEN
    return {**by_key, **dict.fromkeys(FORGED, OPEN if is_public else 403 if takes_keys else 401), **expected}


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of every route; HEAD is GET's."""
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return {(method, path) for method, path in found if method != "HEAD"}


async def wrong(
    http: aiohttp.ClientSession,
    url: str,
    table: Mapping[tuple[str, str], Group],
    credentials: Mapping[str, Headers],
    parameters: Mapping[str, str],
    *,
    parameters_of: Mapping[str, Mapping[str, str]] | None = None,
    headers: Headers | None = None,
) -> list[str]:
    """What was answered other than the table says. `parameters_of` has others for some credentials."""
    found = []
    for (method, path), expected in table.items():
        assert set(expected) == set(credentials), f"{method} {path} does not say what each credential gets"
        for name, own in credentials.items():
            verb = "POST" if method == "*" else method
            target = url + path.format_map({**parameters, **(parameters_of or {}).get(name, {})})
            sent = {**(headers or {}), "Content-Type": "application/json", **own}
            async with http.request(verb, target, headers=sent, data=b"{}") as answer:
                status = answer.status
            wanted = expected[name]
            right = status not in {401, 403} and (status < 500 or status == 501) if wanted == OPEN else status == wanted
            if not right:
                found.append(f"{method} {path} with {name}: {status}, expected {wanted}")
    return found


def bearer(text: str) -> Headers:
    return {"Authorization": f"Bearer {text}"}


async def test_every_route_of_the_room_server(tmp_path: Path) -> None:
    other = new_api_key("99999999-2222-3333-4444-555555555555")
    async with (
        running_server(tmp_path, other_keys=[other], operator_key=OPERATOR_KEY) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        app = server.server.parts.app
        assert routes_of(app) == set(ROOM_SERVER)
        credentials = await _credentials(server, http, encode_api_key(other))
        parameters = {
            "project": server.key.project_id,
            "tenant": server.key.project_id,
            "room": "room",
            "agent": "bot",
            "queue": "jobs",
            "name": "room",
            "id": "none",
            "room_name": "gone",
            "token": "x",
            "version": "-",
            "host": "none",
            "trace": "none",
        }
        parameters |= {"what": "balance", "rest": "more", "path": "files", "address": "nobody@example.com"}
        # What the operator may do would be done.
        parameters_of = {f"operator {shown}": {"tenant": "none"} for shown in ("key", "session")}
        assert set(credentials) == set(CREDENTIALS)
        table = {route: with_sessions(expected) for route, expected in ROOM_SERVER.items()}
        assert await wrong(http, server.url, table, credentials, parameters, parameters_of=parameters_of) == []

        headers = bearer(encode_api_key(other))
        async with http.get(f"{server.url}/accounts/projects", headers=headers) as answer:
            assert server.key.project_id not in await answer.text()


async def _credentials(server: RunningServer, http: aiohttp.ClientSession, other: str) -> Mapping[str, Headers]:
    async def operate(method: str, path: str, body: Any) -> Any:
        async with http.request(method, server.url + path, json=body, headers=bearer(OPERATOR_KEY)) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status == 200 else None

    own = server.key.project_id
    keys = {
        role: (await operate("POST", f"/tenants/{own}/keys", {"role": role}))["value"]
        for role in ("developer", "viewer")
    }

    async def session(key: str) -> Headers:
        """What the page of a session sends."""
        async with http.post(f"{server.url}/studio/api/session", json={"key": key}) as answer:
            assert answer.status == 200, await answer.text()
            cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in answer.cookies.items())
            csrf = (await answer.json())["csrf"]
        return {"Cookie": cookies, CSRF_HEADER: csrf, "Origin": server.url}

    revoked = (await operate("POST", f"/tenants/{own}/keys", {"role": "admin"}))["value"]
    sessions = {"own": server.api_key, **keys, "other": other, "operator": OPERATOR_KEY, "revoked": revoked}
    of_keys = {f"{name} session": await session(key) for name, key in sessions.items()}
    await operate("DELETE", f"/tenants/{own}/keys/{parse_api_key(revoked).id}", None)
    acme = (await operate("POST", "/tenants", {"name": "acme"}))["id"]
    suspended = (await operate("POST", f"/tenants/{acme}/keys", {"role": "admin"}))["value"]
    of_keys["suspended session"] = await session(suspended)
    await operate("POST", f"/tenants/{acme}/suspend", {"reason": "unpaid"})
    asked_by = Participant(name="a", role="user", scope=ApiScope(), key_id=server.key.id, expires_at=None)
    access = server.server.parts.access
    past = datetime.now(UTC) - timedelta(minutes=1)
    return {
        "own key": bearer(server.api_key),
        "developer key": bearer(keys["developer"]),
        "viewer key": bearer(keys["viewer"]),
        "login": bearer(access.sign_login(own)),
        "own token": bearer(server.token("room")),
        "viewer token": bearer(_token(keys["viewer"])),
        "other room token": bearer(server.token("other")),
        "file token": bearer(access.sign_file(RoomKey(TenantId(own), "room"), "f", asked_by)),
        "other key": bearer(other),
        "other token": bearer(_token(other)),
        "operator key": bearer(OPERATOR_KEY),
        "suspended key": bearer(suspended),
        "suspended token": bearer(_token(suspended)),
        "none": {},
        "garbage": bearer("x.y.z"),
        "not bearer": {"Authorization": f"Basic {server.api_key}"},
        "expired token": bearer(server.token("room", expiration=past)),
        "unsigned token": bearer(server.token("room").rpartition(".")[0] + "."),
        "revoked key": bearer(revoked),
        "revoked token": bearer(_token(revoked)),
        **of_keys,
        "session without its value": {**await session(server.api_key), CSRF_HEADER: "x"},
        "session from elsewhere": {**await session(server.api_key), "Origin": "http://evil.example"},
    }


async def test_every_route_of_the_service_host() -> None:
    host = ServiceHost(port=0, webhook_secret=SECRET, admin_key=ADMIN_KEY, allowed_room_urls=["http://localhost"])
    host.add_path("/agent", cls=QuietAgent)
    assert routes_of(host.parts.http.application()) == set(HOST)
    key = encode_api_key(new_api_key("99999999-2222-3333-4444-555555555555"))
    now = time.time()
    signed = {
        "signature": sign_webhook(b"{}", secret=SECRET, now=now),
        "signature of another secret": sign_webhook(b"{}", secret="x" * 40, now=now),
        "old signature": sign_webhook(b"{}", secret=SECRET, now=now - 2 * MAX_AGE_SECONDS),
        "signature of another body": sign_webhook(b"[]", secret=SECRET, now=now),
    }
    credentials: dict[str, Headers] = {
        "none": {},
        "garbage": bearer("x.y.z"),
        "not bearer": {"Authorization": f"Basic {ADMIN_KEY}"},
        "room token": bearer(_token(key)),
        "API key": bearer(key),
        "admin key": bearer(ADMIN_KEY),
        **{name: {"Meshhost-Signature": signature} for name, signature in signed.items()},
    }
    assert await _wrong_of_host(host, HOST, credentials) == []


async def test_every_route_of_a_host_without_secrets() -> None:
    host = ServiceHost(port=0, webhook_secret="", admin_key="", allowed_room_urls=["http://localhost"])
    host.add_path("/agent", cls=QuietAgent)
    names = ("a program", *STRANGERS)
    closed: Group = dict.fromkeys(names, 401) | {"a program": OPEN}
    table = {route: dict.fromkeys(names, OPEN) if who is ANYBODY else closed for route, who in HOST.items()}
    assert await _wrong_of_host(host, table, {"a program": {}, **STRANGERS}) == []


async def _wrong_of_host(
    host: ServiceHost, table: Mapping[tuple[str, str], Group], credentials: Mapping[str, Headers]
) -> list[str]:
    await host.start()
    try:
        parameters = {"id": "none", "tenant": "t", "path": "agent"}
        # The last: it ends the host.
        drain = {("POST", "/drain"): table["POST", "/drain"]}
        others = {route: expected for route, expected in table.items() if route not in drain}
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{host.port}"
            # `Upgrade` makes a GET of a path a call over a WebSocket; without it the answer is 405.
            found = await wrong(http, url, others, credentials, parameters, headers={"Upgrade": "websocket"})
            return found + await wrong(http, url, drain, credentials, parameters)
    finally:
        await host.stop()


def _token(key: str) -> str:
    token = ParticipantToken(name="tester")
    token.add_room_grant("room")
    token.version = "0.5.3"  # has an agent's scope
    return token.to_jwt(api_key=key)
