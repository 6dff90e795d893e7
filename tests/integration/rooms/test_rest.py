"""The REST API, the login and the probes of a room server."""

import asyncio
import base64
import hashlib
import logging
import re
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshhost.errors import ConnectionLostError, RoomRefusedError, SettingsError
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.keys import ApiKey, encode_api_key, new_api_key, parse_api_key
from meshhost.identity.tokens import NO_EXPIRATION
from meshhost.queues.over_engine import queue_service
from meshhost.room.client import RoomClient
from meshhost.server.config import ServerConfig
from meshhost.server.http.errors import errors_as_json
from meshhost.server.http.login import CODE_SECONDS, MAX_CODES, LoginRoutes
from meshhost.server.server import RoomServer
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.memory.engine import memory_engine
from meshhost.stores.memory.identity import MemoryIdentityStore
from meshhost.testing.clock import FakeClock
from meshhost.testing.server import RunningServer
from meshhost.transport.websocket_client import WebSocketClientProtocol


class _Rest:
    def __init__(self, server: RunningServer, http: aiohttp.ClientSession, bearer: str | None = None) -> None:
        self.server = server
        self.http = http
        self.headers = {"Authorization": f"Bearer {bearer or server.api_key}"}
        self.base = f"/accounts/projects/{server.key.project_id}"

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        path = path.replace("{P}", self.base)
        async with self.http.request(method, self.server.url + path, headers=self.headers, **options) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
def rest(server: RunningServer, http: aiohttp.ClientSession) -> _Rest:
    return _Rest(server, http)


ROUTES = [
    ("GET", "/accounts/projects"),
    ("POST", "{P}/api-keys"),
    ("GET", "{P}/api-keys"),
    ("DELETE", "{P}/api-keys/x"),
    ("POST", "{P}/rooms"),
    ("GET", "{P}/rooms"),
    ("GET", "{P}/rooms/x"),
    ("DELETE", "{P}/rooms/x"),
    ("POST", "{P}/rooms/x/connect"),
    ("GET", "{P}/sessions/active"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path}" for method, path in ROUTES])
async def test_every_route_wants_a_key(
    server: RunningServer, http: aiohttp.ClientSession, other_key: ApiKey, method: str, path: str
) -> None:
    real = server.key
    wrong = [
        "nonsense",
        "ma-nonsense",
        encode_api_key(new_api_key(real.project_id)),
        encode_api_key(ApiKey(real.id, real.project_id, "0" * 64)),
        encode_api_key(ApiKey(real.id, other_key.project_id, real.secret)),
        server.token("room"),
    ]
    for bearer in wrong:
        status, body = await _Rest(server, http, bearer)(method, path, json={})
        assert status == 401, bearer
        assert "error" in body
    if "{P}" in path:
        status, _ = await _Rest(server, http, encode_api_key(other_key))(method, path, json={})
        assert status == 404


async def test_a_key_sees_its_own_project(
    server: RunningServer, http: aiohttp.ClientSession, other_key: ApiKey
) -> None:
    for key in (server.key, other_key):
        status, body = await _Rest(server, http, encode_api_key(key))("GET", "/accounts/projects")
        assert (status, [project["id"] for project in body["projects"]]) == (200, [key.project_id])


async def test_keys_are_made_listed_and_revoked(rest: _Rest) -> None:
    status, made = await rest("POST", "{P}/api-keys", json={"name": "ci", "description": "d"})
    assert status == 200
    status, listed = await rest("GET", "{P}/api-keys")
    assert listed == {"keys": [{"id": made["id"], "name": "ci", "description": "d"}]}
    new = _Rest(rest.server, rest.http, made["value"])
    assert (await new("GET", "/accounts/projects"))[0] == 200
    assert (await rest("DELETE", f"{{P}}/api-keys/{made['id']}"))[0] == 204
    assert (await rest("DELETE", f"{{P}}/api-keys/{made['id']}"))[0] == 404
    assert (await new("GET", "/accounts/projects"))[0] == 401
    assert (await rest("DELETE", f"{{P}}/api-keys/{rest.server.key.id}"))[0] == 404


async def test_a_revoked_key_ends_what_it_signed(rest: _Rest) -> None:
    _, made = await rest("POST", "{P}/api-keys", json={})
    second = RunningServer(rest.server.server, parse_api_key(made["value"]))
    async with rest.server.client(name="stays") as stays, second.client(name="goes") as goes:
        await rest("DELETE", f"{{P}}/api-keys/{made['id']}")
        reason = await goes.wait_closed()
        assert isinstance(reason.error, ConnectionLostError)
        assert reason.error.close_code == 4001
        await stays.queues.list()


async def test_keys_survive_a_restart(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve() as server:
        _, made = await _Rest(server, http)("POST", "{P}/api-keys", json={})
        await _Rest(server, http)("POST", "{P}/rooms", json={"name": "r"})
    async with serve() as server:
        rest = _Rest(server, http, made["value"])
        assert (await rest("GET", "{P}/rooms/r"))[0] == 200


async def test_rooms_are_made_listed_and_deleted(rest: _Rest) -> None:
    status, one = await rest("POST", "{P}/rooms", json={"name": "one", "metadata": {"a": 1}, "permissions": None})
    assert (status, one["name"], one["metadata"]) == (200, "one", {"a": 1})
    assert (await rest("POST", "{P}/rooms", json={"name": "one"}))[0] == 409
    status, again = await rest("POST", "{P}/rooms", json={"name": "one", "if_not_exists": True, "metadata": None})
    assert (status, again) == (200, one)
    await rest("POST", "{P}/rooms", json={"name": "two"})
    _, listed = await rest("GET", "{P}/rooms?limit=50&offset=0&order_by=room_name")
    assert [room["name"] for room in listed["rooms"]] == ["one", "two"]
    _, listed = await rest("GET", "{P}/rooms?limit=1&offset=1")
    assert [room["name"] for room in listed["rooms"]] == ["two"]
    assert await rest("GET", "{P}/rooms/one") == (200, one)
    assert (await rest("GET", "{P}/rooms/three"))[0] == 404
    async with rest.server.client("one") as room:
        assert (await rest("DELETE", f"{{P}}/rooms/{one['id']}"))[0] == 204
        reason = await room.wait_closed()
        assert isinstance(reason.error, ConnectionLostError)
        assert reason.error.close_code == 4004
    assert (await rest("DELETE", f"{{P}}/rooms/{one['id']}"))[0] == 404


async def test_many_may_make_one_room_at_once(rest: _Rest) -> None:
    answers = await asyncio.gather(*(rest("POST", "{P}/rooms", json={"name": "r"}) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] + [409] * 7
    request = {"name": "s", "if_not_exists": True}
    answers = await asyncio.gather(*(rest("POST", "{P}/rooms", json=request) for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    assert len({body["id"] for _, body in answers}) == 1


async def test_many_may_revoke_one_key_at_once(rest: _Rest) -> None:
    _, made = await rest("POST", "{P}/api-keys", json={})
    answers = await asyncio.gather(*(rest("DELETE", f"{{P}}/api-keys/{made['id']}") for _ in range(4)))
    assert {status for status, _ in answers} <= {204, 404}


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("{P}/rooms", {"data": b"{"}),
        ("{P}/rooms", {"data": b"\xff\xfe"}),
        ("{P}/rooms", {"data": b"[" * 100_000}),
        ("{P}/rooms", {"json": []}),
        ("{P}/rooms", {"json": {}}),
        ("{P}/rooms", {"json": {"name": 3}}),
        ("{P}/rooms", {"json": {"name": "Upper"}}),
        ("{P}/rooms", {"json": {"name": "r", "metadata": [1]}}),
        ("{P}/api-keys", {"json": {"name": "\ud800"}}),
        ("{P}/api-keys", {"json": {"description": 4}}),
        ("{P}/rooms/Upper/connect", {"json": {}}),
    ],
    ids=range(11),
)
async def test_a_malformed_request_is_400(rest: _Rest, path: str, options: dict[str, Any]) -> None:
    status, body = await rest("POST", path, **options)
    assert status == 400
    assert "error" in body


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=-1", "offset=1.5", "offset=99999999999999999999", "limit=" + "9" * 5000]
)
async def test_a_malformed_page_is_400(rest: _Rest, query: str) -> None:
    assert (await rest("GET", f"{{P}}/rooms?{query}"))[0] == 400


async def test_connect_gives_a_token_that_joins(rest: _Rest) -> None:
    status, body = await rest("POST", "{P}/rooms/lobby/connect", json={})
    assert (status, body["room_name"], body["project_id"]) == (200, "lobby", rest.server.key.project_id)
    async with RoomClient(protocol=WebSocketClientProtocol(url=body["room_url"], token=body["jwt"])) as room:
        await room.queues.list()
        _, active = await rest("GET", "{P}/sessions/active")
        (session,) = active["sessions"]
        assert (session["id"], session["room_name"]) == (room.session_id, "lobby")
        assert session["participants"] == [{"name": "cli", "role": "user"}]


async def test_what_connect_signs_ends_with_the_key_that_asked(rest: _Rest) -> None:
    _, made = await rest("POST", "{P}/api-keys", json={"name": "mine", "description": ""})
    mine = _Rest(rest.server, rest.http, made["value"])
    _, body = await mine("POST", "{P}/rooms/lobby/connect", json={})
    async with RoomClient(protocol=WebSocketClientProtocol(url=body["room_url"], token=body["jwt"])) as room:
        await rest("DELETE", f"{{P}}/api-keys/{made['id']}")
        assert (await room.wait_closed()).error is not None


async def test_active_sessions_are_the_projects_own(
    server: RunningServer, http: aiohttp.ClientSession, other_key: ApiKey
) -> None:
    rest = _Rest(server, http, encode_api_key(other_key))
    rest.base = f"/accounts/projects/{other_key.project_id}"
    async with server.client():
        assert await rest("GET", "{P}/sessions/active") == (200, {"sessions": []})


async def test_a_project_without_a_key_cannot_sign(rest: _Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    login = rest.server.server.parts.access.sign_login(rest.server.key.project_id)
    monkeypatch.setattr(rest.server.server.engines.identity, "signing_key", lambda *_: None)
    status, _ = await _Rest(rest.server, rest.http, login)("POST", "{P}/rooms/r/connect", json={})
    assert status == 403


async def test_an_unexpected_failure_tells_nothing(
    rest: _Rest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any) -> None:
        raise ConnectionLostError("inner secret")

    monkeypatch.setattr(rest.server.server.engines.identity, "projects", fail)
    status, body = await rest("GET", "/accounts/projects")
    assert status == 500
    assert "secret" not in body["error"]
    assert "request failed" in caplog.text


async def test_probes_and_metrics(rest: _Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await rest("GET", "/") == (200, {"ok": True})
    assert await rest("GET", "/livez") == (200, {"ok": True})
    assert await rest("GET", "/readyz") == (200, {"ok": True})
    async with rest.server.client() as room:
        await room.queues.send(name="q", message=1)
        async with rest.http.get(f"{rest.server.url}/metrics") as response:
            text = await response.text()
    assert "meshhost_participants_connected 1.0" in text
    assert 'meshhost_queue_messages{state="ready"} 1.0' in text
    assert 'meshhost_room_requests_total{outcome="accepted",type="queues.send"} 1.0' in text

    async def broken() -> None:
        raise OSError

    monkeypatch.setattr(rest.server.server.engines.queues, "check", broken)
    assert (await rest("GET", "/readyz"))[0] == 503


VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
AUTHORIZE = {
    "response_type": "code",
    "client_id": "cli",
    "redirect_uri": "http://localhost:8765/callback",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "state": "s",
}


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines on the server's console."""
    lines: list[str] = []
    monkeypatch.setattr("meshhost.server.http.login.show_on_console", lines.append)
    return lines


async def _asked(rest: _Rest, shown: list[str]) -> dict[str, str]:
    """The form of the page that asks for the console code, filled in."""
    url = f"{rest.server.url}/oauth/authorize"
    async with rest.http.get(url, params=AUTHORIZE, allow_redirects=False) as response:
        assert response.status == 200
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        found = re.search(r'name="login" value="([^"]+)"', await response.text())
    assert found
    return {"login": found[1], "console_code": shown[-1].rpartition(" ")[2]}


async def _answered(rest: _Rest, form: dict[str, str], **headers: str) -> tuple[int, str]:
    url = f"{rest.server.url}/oauth/authorize"
    async with rest.http.post(url, data=form, headers=headers, allow_redirects=False) as response:
        return response.status, response.headers.get("Location", "")


async def _code(rest: _Rest, shown: list[str]) -> str:
    status, location = await _answered(rest, await _asked(rest, shown), Origin=rest.server.url)
    assert status == 303
    assert location.startswith("http://localhost:8765/callback?")
    query = parse_qs(urlsplit(location).query)
    assert query["state"] == ["s"]
    return query["code"][0]


async def _exchange(rest: _Rest, good_code: str, **changed: str) -> tuple[int, Any]:
    form = {
        "grant_type": "authorization_code",
        "code": good_code,
        "redirect_uri": AUTHORIZE["redirect_uri"],
        "client_id": "cli",
        "code_verifier": VERIFIER,
    } | changed
    return await rest("POST", "/oauth/token", data=form)


async def test_a_login_gives_a_token_for_rest(rest: _Rest, shown: list[str]) -> None:
    code = await _code(rest, shown)
    status, body = await _exchange(rest, code)
    assert status == 200
    login = _Rest(rest.server, rest.http, body["access_token"])
    assert (await login("GET", "/accounts/projects"))[0] == 200
    status, sent = await login("POST", "/rooms/r/queues/jobs/messages", json={"a": 1})
    assert status == 200
    assert (await login("GET", f"/rooms/r/queues/jobs/messages/{sent['id']}"))[1]["message"] == {"a": 1}
    # A room is joined with a participant's token, which `connect` gives for a login.
    status, refused = await login("GET", "/rooms/r")
    assert status == 401
    assert "this is a login" in refused["error"]
    assert "/rooms/r/connect" in refused["error"]
    assert (await _exchange(rest, code))[0] == 400


@pytest.mark.parametrize(
    "changed",
    [{"code": "other"}, {"code_verifier": "other"}, {"redirect_uri": "http://localhost/"}, {"client_id": "other"}],
    ids=lambda changed: next(iter(changed)),
)
async def test_a_code_is_bound_to_who_asked_for_it(rest: _Rest, shown: list[str], changed: dict[str, str]) -> None:
    assert (await _exchange(rest, await _code(rest, shown), **changed))[0] == 400


async def test_a_code_is_forgotten_when_there_are_many_newer_ones(rest: _Rest, shown: list[str]) -> None:
    code = await _code(rest, shown)
    for _ in range(MAX_CODES):
        newest = await _code(rest, shown)
    assert (await _exchange(rest, code))[0] == 400
    assert (await _exchange(rest, newest))[0] == 200


async def test_an_old_code_is_worth_nothing(rest: _Rest, shown: list[str]) -> None:
    clock, app = FakeClock(), web.Application(middlewares=[errors_as_json])
    LoginRoutes(rest.server.server.parts.access, show=shown.append, clock=clock).add_to(app)
    async with TestServer(app) as own:
        place: Any = SimpleNamespace(url=str(own.make_url("")).rstrip("/"), key=rest.server.key)
        login = _Rest(place, rest.http, "nobody")
        for wait, granted, exchanged in ((CODE_SECONDS - 1, 303, 200), (CODE_SECONDS + 1, 403, 400)):
            form = await _asked(login, shown)
            await clock.advance(wait)
            assert (await _answered(login, form, Origin=login.server.url))[0] == granted
            code = await _code(login, shown)
            await clock.advance(wait)
            assert (await _exchange(login, code))[0] == exchanged


@pytest.mark.parametrize(
    "changed",
    [
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://[/"},
        {"redirect_uri": ""},
        {"redirect_uri": "http://localhost/\r\nSet-Cookie: a=b"},
        {"redirect_uri": "http://evil.example\\@localhost/cb"},
        {"redirect_uri": "http://evil.example@localhost/cb"},
        {"redirect_uri": "http://localhost@evil.example/cb"},
        {"redirect_uri": "javascript://localhost/%0aalert(1)"},
        {"redirect_uri": "https://localhost/cb"},
        {"redirect_uri": "//localhost/cb"},
        {"redirect_uri": "http://localhost.evil.example/cb"},
        {"redirect_uri": "http://localhost:99999/cb"},
        {"redirect_uri": "http://localhost:8765/cb?a=b"},
        {"redirect_uri": "http://localhost:8765/cb#a"},
        {"redirect_uri": "http://127.1/cb"},
        {"redirect_uri": " http://localhost/cb"},
        {"redirect_uri": "http://localhost\t/cb"},
        {"code_challenge_method": "plain"},
        {"code_challenge": ""},
        {"code_challenge": "ü"},
    ],
    ids=range(20),
)
async def test_a_login_goes_to_this_machine_only_and_needs_pkce(rest: _Rest, changed: dict[str, str]) -> None:
    url = f"{rest.server.url}/oauth/authorize"
    async with rest.http.get(url, params=AUTHORIZE | changed, allow_redirects=False) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rooms.example"},
        {"Host": "localhost.evil.example:8080"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=range(7),
)
async def test_a_login_is_for_programs_of_this_machine(rest: _Rest, shown: list[str], headers: dict[str, str]) -> None:
    form = await _asked(rest, shown)
    code = await _code(rest, shown)
    lines = len(shown)
    url = f"{rest.server.url}/oauth"
    async with rest.http.get(f"{url}/authorize", params=AUTHORIZE, headers=headers) as response:
        assert response.status == 404
    assert await _answered(rest, form, **headers) == (404, "")
    exchange = {"code": code, "redirect_uri": AUTHORIZE["redirect_uri"], "client_id": "cli", "code_verifier": VERIFIER}
    async with rest.http.post(f"{url}/token", data=exchange, headers=headers) as response:
        assert response.status == 404
    assert len(shown) == lines


async def test_a_login_from_another_machine_is_not_found(rest: _Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshhost.edge.same_machine.is_loopback", lambda _: False)
    assert (await rest("GET", "/oauth/authorize"))[0] == 404
    assert (await rest("POST", "/oauth/authorize"))[0] == 404
    assert (await rest("POST", "/oauth/token"))[0] == 404


async def test_a_login_needs_the_code_of_the_console(rest: _Rest, shown: list[str]) -> None:
    form = await _asked(rest, shown)
    for _ in range(4):
        assert await _answered(rest, form | {"console_code": "0000-000x"}) == (403, "")
    assert (await _answered(rest, form))[0] == 303
    assert (await _answered(rest, form))[0] == 403

    form = await _asked(rest, shown)
    for _ in range(5):
        assert (await _answered(rest, form | {"console_code": ""}))[0] == 403
    assert await _answered(rest, form) == (403, "")


async def test_a_login_needs_a_project(rest: _Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none() -> list[Any]:
        return []

    monkeypatch.setattr(rest.server.server.engines.identity, "projects", none)
    assert (await rest("GET", "/oauth/authorize", params=AUTHORIZE))[0] == 404


async def test_the_login_can_be_turned_off(serve: Any, http: aiohttp.ClientSession) -> None:
    async with serve(oauth=False) as server, http.get(f"{server.url}/oauth/authorize") as response:
        assert response.status == 404
    # Behind a public URL it is off unless asked for.
    async with serve(public_url="https://rooms.example/") as server:
        assert server.url == "https://rooms.example"
        assert server.server.room_url("r") == "wss://rooms.example/rooms/r"
        async with http.get(f"http://127.0.0.1:{server.server.port}/oauth/authorize") as response:
            assert response.status == 404


async def test_an_address_in_use_is_named(serve: Any, server: RunningServer) -> None:
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{server.server.port}"):
        async with serve(port=server.server.port):
            pass


async def test_tokens_without_an_end_can_be_refused(serve: Any, http: aiohttp.ClientSession) -> None:
    for is_required in (False, True):
        async with serve(require_token_expiry=is_required) as server:
            endless = server.token("room", expiration=NO_EXPIRATION)
            url = server.server.room_url("room")
            room = RoomClient(protocol=WebSocketClientProtocol(url=url, token=endless))
            with pytest.raises(RoomRefusedError, match="exp") if is_required else nullcontext():
                async with room:
                    await room.queues.list()
            headers = {"Authorization": f"Bearer {endless}"}
            async with http.get(f"{server.url}/rooms/room/v1/models", headers=headers) as answer:
                assert (answer.status == 401) is is_required
            # Those that the server signs itself have an end.
            async with server.client() as other:
                await other.queues.list()


async def test_the_gateway_takes_tokens_of_its_room_only(server: RunningServer, http: aiohttp.ClientSession) -> None:
    empty, queues = (server.token("room", scope=scope) for scope in (ApiScope(), ApiScope(queues=QueuesGrant())))
    agent = server.token("room", scope=ApiScope.agent_default())
    cases = [(server.token("room"), 200), (agent, 200), (server.token("other"), 403), ("x", 401)]
    for token, status in (*cases, (empty, 403), (queues, 403)):
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get(f"{server.url}/rooms/room/v1/models", headers=headers) as response:
            assert response.status == status


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("name", "name")]
)
def test_the_url_is_one_that_can_be_dialled(host: str, shown: str) -> None:
    nothing: Any = None
    identity = IdentityService(MemoryIdentityStore())
    config = ServerConfig(host=host, port=81)
    queues = queue_service(memory_engine())
    server = RoomServer(config, queues=queues, documents=nothing, files=nothing, identity=identity, providers=nothing)
    assert server.url == f"http://{shown}:81"
    assert server.room_url("r") == f"ws://{shown}:81/rooms/r"


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("GET", "{P}/routes", "GET routes"),
        ("POST", "{P}/secrets/x/y", "POST secrets"),
        ("PATCH", "{P}/rooms/some-id", "PATCH rooms"),
        ("GET", "{P}/what%20%C3%A9ver", "GET this"),
    ],
)
async def test_what_is_not_offered_says_so_in_the_reason_phrase(rest: _Rest, method: str, path: str, what: str) -> None:
    text = f"meshhost does not offer {what}: see Migrate from MeshAgent in its documentation"
    url = rest.server.url + path.replace("{P}", rest.base)
    async with rest.http.request(method, url, headers=rest.headers) as response:
        assert (response.status, response.reason, await response.json()) == (501, text, {"error": text})
    async with rest.http.request(method, url) as response:
        assert response.status == 401
    assert (await rest(method, path.replace("{P}", "/accounts/projects/another")))[0] == 404


MALFORMED = {
    "no HTTP": b"what?\r\n\r\n",
    "a length below zero": b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a name with a space": b"GET /livez HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n",
    "a broken chunk": b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half a body": b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 9\r\n\r\n{",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_told_so_and_leaves_no_traceback(
    rest: _Rest, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    if b"%s" in raw:
        raw = raw % (f"{rest.base}/rooms".encode(), rest.server.api_key.encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", rest.server.server.port)
    writer.write(raw)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert re.match(rb"HTTP/1\.[01] 400 ", answer) or answer == b""
    assert b"Traceback" not in answer
    # The server goes on, and wrote nothing down that a sender could fill the log with.
    assert (await rest("GET", "/livez"))[0] == 200
    assert [
        record.getMessage() for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR
    ] == []


async def test_a_fault_of_the_server_itself_is_still_logged(
    rest: _Rest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest.server.server.engines.identity, "rooms", None)
    status, body = await _whole(rest, "GET", f"{rest.base}/rooms")
    assert status == 500
    assert "Traceback" not in body
    assert any(record.exc_info for record in caplog.records if record.levelno >= logging.ERROR)


async def _whole(rest: _Rest, method: str, path: str) -> tuple[int, str]:
    async with rest.http.request(method, rest.server.url + path, headers=rest.headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/rooms/ID", {"name": "other"}, 400, "name: expected 'r': a room keeps its name"),
        ("PUT", "/rooms/ID", {"metadata": [1]}, 400, "metadata: expected an object or null"),
        ("PUT", "/rooms/ID", {"annotations": {"a": 1}}, 400, "annotations: expected an object of texts, or null"),
        ("PUT", "/rooms/nothing", {"metadata": {}}, 404, "no such room"),
        ("POST", "/rooms", {"name": "s", "permissions": {"u": {}}}, 400, "permissions: expected null"),
        ("GET", "/rooms?page_size=x", None, 400, "page_size: expected a number"),
        ("GET", "/rooms?page_size=1&continuation_token=x", None, 400, "continuation_token: expected a number"),
        ("GET", "/rooms/nothing/status", None, 404, "no such room"),
    ],
)
async def test_wrong_requests_about_rooms_are_refused_by_field(
    rest: _Rest, method: str, path: str, body: Any, status: int, said: str
) -> None:
    async with rest.http.post(f"{rest.server.url}{rest.base}/rooms", headers=rest.headers, json={"name": "r"}) as made:
        room_id = (await made.json())["id"]
    url = rest.server.url + rest.base + path.replace("ID", room_id)
    async with rest.http.request(method, url, headers=rest.headers, json=body) as response:
        assert (response.status, (await response.json())["error"][: len(said)]) == (status, said)


async def test_the_status_of_a_room_says_whether_it_is_open(rest: _Rest) -> None:
    async with rest.server.client("r"):
        url = f"{rest.server.url}{rest.base}/rooms/r/status"
        async with rest.http.get(url, headers=rest.headers) as response:
            assert await response.json() == {"status": "Allocated"}
