"""Studio's side of the server: the page with its headers, signing in, sessions that are worth what their keys are worth."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from meshhost.app.config_file import ServerFile
from meshhost.errors import InvalidTokenError
from meshhost.identity.keys import parse_api_key
from meshhost.server.http.sessions import CSRF_HEADER
from meshhost.server.studio.codes import CODE_SECONDS, CodeOf, OneTimeCodes
from meshhost.studio.files import read_files
from meshhost.testing.clock import FakeClock
from meshhost.testing.server import RunningServer, running_server

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
STATIC = Path(__file__).parents[3] / "meshhost" / "studio" / "static"


class Browser:
    """A browser at a server: it keeps cookies and says where its requests come from."""

    def __init__(self, server: RunningServer, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http
        self.csrf: str | None = None

    async def __call__(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """Status and body of a request that the page makes."""
        sent = {"Origin": self.server.url, "Sec-Fetch-Site": "same-origin"}
        if self.csrf is not None:
            sent[CSRF_HEADER] = self.csrf
        given = {name: text for name, text in {**sent, **(headers or {})}.items() if text}
        async with self.http.request(method, self.server.url + path, headers=given, **options) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json and text else text

    async def sign_in(self, **by: str) -> Any:
        status, body = await self("POST", "/studio/api/session", json=by)
        if status == 200:
            self.csrf = body["csrf"]
        return status, body


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, operator_key=OPERATOR_KEY) as running:
        yield running


@asynccontextmanager
async def browser_at(server: RunningServer) -> AsyncIterator[Browser]:
    # Cookies of 127.0.0.1 too, as browsers keep them.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield Browser(server, http)


@pytest.fixture
async def browser(server: RunningServer) -> AsyncIterator[Browser]:
    async with browser_at(server) as one:
        yield one


async def as_operator(server: RunningServer, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, server.url + path, json=body, headers=headers) as answer,
    ):
        assert answer.status < 300, await answer.text()
        return await answer.json(content_type=None)


async def new_key(server: RunningServer, **rights: Any) -> str:
    made = await as_operator(server, "POST", f"/tenants/{server.key.project_id}/keys", {"name": "laptop", **rights})
    return str(made["value"])


# --- The page


async def test_each_address_below_studio_is_the_page(browser: Browser) -> None:
    for path in ("/studio", "/studio/", "/studio/rooms/a/queues/b"):
        await expect_page(browser, path)


async def expect_page(browser: Browser, path: str) -> None:
    async with browser.http.get(browser.server.url + path) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert answer.headers["Cache-Control"] == "no-cache"
        page, tag = await answer.text(), answer.headers["ETag"]
    assert f"/studio/static/{read_files().version}/" in page
    assert "/studio/static/-/" not in page
    async with browser.http.get(browser.server.url + path, headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_the_page_runs_nothing_but_the_servers_own_files(browser: Browser) -> None:
    async with browser.http.get(f"{browser.server.url}/studio/") as answer:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        host = browser.server.url.removeprefix("http://")
        assert (
            policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == policy["object-src"] == "'none'"
        )
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert policy["connect-src"] == f"'self' ws://{host} wss://{host}"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "camera=()" in answer.headers["Permissions-Policy"]


async def test_a_strange_host_gets_no_word_into_the_policy(browser: Browser) -> None:
    headers = {"Host": "evil.example; script-src *"}
    async with browser.http.get(f"{browser.server.url}/studio/", headers=headers) as answer:
        assert "evil" not in answer.headers.get("Content-Security-Policy", "")


async def test_every_file_of_the_package_is_served_for_good(browser: Browser) -> None:
    files = read_files()
    assert set(files.files) == {str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file()}
    for path, file in files.files.items():
        async with browser.http.get(f"{browser.server.url}/studio/static/{files.version}/{path}") as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
            assert answer.headers.get("Content-Encoding") == ("gzip" if file.compressed else None)
            assert answer.content_type == file.content_type != "application/octet-stream" or path == "LICENSE"
            assert await answer.read() == (STATIC / path).read_bytes()


async def test_a_browser_without_gzip_gets_files_as_they_are(browser: Browser) -> None:
    url = f"{browser.server.url}/studio/static/-/index.html"
    async with browser.http.get(url, headers={"Accept-Encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["static/0123456789abcdef/index.html", "static/-/none.js", "static/-/../__init__.py", "api/none", "static/-"],
)
async def test_what_is_no_file_of_this_version_is_not_found(browser: Browser, path: str) -> None:
    status, body = await browser("GET", f"/studio/{path}")
    assert (status, list(body)) == (404, ["error"])


def test_the_wheel_contains_the_files() -> None:
    config = (STATIC.parents[2] / "pyproject.toml").read_text()
    # Hatch takes all of a package's folder that git does not ignore.
    assert 'packages = ["meshhost"]' in config
    ignored = (STATIC.parents[2] / ".gitignore").read_text().split()
    assert not any(re.search(r"\.(js|css|html|json|svg)$|static|vendor", line) for line in ignored)


# --- Signing in


async def test_nobody_is_signed_in_at_first(browser: Browser) -> None:
    status, body = await browser("GET", "/studio/api/session")
    assert (status, body["role"], body["sign_in"]) == (200, None, ["key", "code"])
    assert "csrf" not in body


async def test_a_key_signs_in_and_the_cookie_is_the_key_from_then_on(browser: Browser) -> None:
    status, body = await browser.sign_in(key=browser.server.api_key)
    assert (status, body["role"], body["tenant"]["id"]) == (200, "admin", browser.server.key.project_id)
    assert body["expires"] > time.time()
    again, shown = await browser("GET", "/studio/api/session")
    assert (again, shown["csrf"]) == (200, body["csrf"])
    assert (await browser("GET", "/accounts/projects"))[0] == 200
    assert (await browser("POST", "/rooms/den/queues/jobs/messages", json={"a": 1}))[0] == 200
    assert (await browser("GET", "/rooms/den/queues"))[1]["queues"][0]["ready"] == 1


async def test_the_cookie_is_for_the_browser_alone(browser: Browser) -> None:
    body = {"key": browser.server.api_key}
    async with browser.http.post(f"{browser.server.url}/studio/api/session", json=body) as answer:
        cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert "Secure" not in cookie
        assert answer.headers["Cache-Control"] == "no-store"
        assert browser.server.key.secret not in cookie
    headers = {"Origin": "https://studio.example", "Host": "studio.example"}
    async with browser.http.post(f"{browser.server.url}/studio/api/session", json=body, headers=headers) as answer:
        assert "Secure" in answer.headers["Set-Cookie"]


async def test_a_wrong_key_or_code_does_not_sign_in(browser: Browser) -> None:
    bodies: list[dict[str, str]] = [
        {"key": "ma-x"},
        {"key": "nothing"},
        {"code": "x"},
        {"key": "ma-" + "A" * 22 + "-" + "A" * 22 + "-x"},
    ]
    for body in bodies:
        status, answer = await browser.sign_in(**body)
        assert (status, list(answer)) == (401, ["error"]), body
    assert (await browser("GET", "/studio/api/session"))[1]["role"] is None


async def test_a_sign_in_names_one_thing(browser: Browser) -> None:
    bodies: list[Any] = [{}, {"key": "a", "code": "b"}, {"key": 1}, []]
    for body in bodies:
        assert (await browser("POST", "/studio/api/session", json=body))[0] == 400, body


@pytest.mark.parametrize("role", ["viewer", "developer"])
async def test_a_session_has_the_role_of_its_key(browser: Browser, role: str) -> None:
    key = await new_key(browser.server, role=role)
    _, body = await browser.sign_in(key=key)
    assert (body["role"], body["name"]) == (role, "laptop")
    project = browser.server.key.project_id
    assert (await browser("GET", f"/accounts/projects/{project}/rooms"))[0] == 200
    assert (await browser("POST", f"/tenants/{project}/keys", json={}))[0] == 403
    status, answer = await browser("POST", "/rooms/den/queues/jobs/messages", json={"a": 1})
    assert status == (403 if role == "viewer" else 200), answer
    status, answer = await browser("POST", "/studio/api/rooms/den/token")
    assert status == (403 if role == "viewer" else 200), answer


async def test_the_operators_session_manages_tenants_and_opens_no_room(browser: Browser) -> None:
    status, body = await browser.sign_in(key=OPERATOR_KEY)
    assert (status, body["role"], body["tenant"]) == (200, "operator", None)
    assert (await browser("GET", "/tenants"))[0] == 200
    assert (await browser("POST", "/tenants", json={"name": "acme"}))[0] == 200
    assert (await browser("GET", "/rooms/den/queues"))[0] == 403
    assert (await browser("POST", "/studio/api/rooms/den/token"))[0] == 403


async def test_under_https_the_cookie_can_be_set_by_nobody_else(tmp_path: Path) -> None:
    file = ServerFile.model_validate({"server": {"public_url": "https://rooms.example.com"}})
    async with running_server(tmp_path, file=file) as server, aiohttp.ClientSession() as http:
        headers = {"Origin": "https://rooms.example.com"}
        at = f"http://127.0.0.1:{server.server.port}/studio/api/session"
        async with http.post(at, json={"key": server.api_key}, headers=headers) as answer:
            name, rest = answer.headers["Set-Cookie"].split("=", 1)
        assert name.startswith("__Host-")
        assert {"Secure", "Path=/"} <= {part.strip() for part in rest.split(";")}
        assert "Domain" not in rest
        planted = {"Cookie": f"meshhost-studio={rest.split(';')[0]}"}  # as another server of the domain may
        async with http.get(at, headers=planted) as answer:
            assert (await answer.json())["role"] is None


async def test_signing_out_ends_the_session_even_for_a_copied_cookie(browser: Browser) -> None:
    await browser.sign_in(key=browser.server.api_key)
    copied = {cookie.key: cookie.value for cookie in browser.http.cookie_jar}
    assert (await browser("DELETE", "/studio/api/session"))[0] == 204
    assert (await browser("GET", "/studio/api/session"))[1]["role"] is None
    browser.http.cookie_jar.update_cookies(copied, URL(browser.server.url))
    assert (await browser("GET", "/accounts/projects"))[0] == 401
    assert (await browser("DELETE", "/studio/api/session"))[0] == 204


async def test_a_revoked_key_ends_its_session_at_once(browser: Browser) -> None:
    key = await new_key(browser.server, role="admin")
    await browser.sign_in(key=key)
    assert (await browser("GET", "/accounts/projects"))[0] == 200
    await as_operator(
        browser.server, "DELETE", f"/tenants/{browser.server.key.project_id}/keys/{parse_api_key(key).id}"
    )
    assert (await browser("GET", "/accounts/projects"))[0] == 401
    status, body = await browser("GET", "/studio/api/session")
    assert (status, body["role"]) == (200, None)
    assert "ended" in body


async def test_a_suspended_tenant_has_no_session(browser: Browser) -> None:
    await browser.sign_in(key=browser.server.api_key)
    await as_operator(browser.server, "POST", f"/tenants/{browser.server.key.project_id}/suspend", {"reason": "unpaid"})
    status, body = await browser("GET", "/accounts/projects")
    assert (status, "unpaid" in body["error"]) == (403, True)
    assert "unpaid" in (await browser("GET", "/studio/api/session"))[1]["ended"]


async def test_a_session_outlives_its_server(tmp_path: Path) -> None:
    async with running_server(tmp_path) as first, browser_at(first) as browser:
        await browser.sign_in(key=first.api_key)
        port = first.server.port
        cookies, csrf = browser.http.cookie_jar, browser.csrf
        copied = {cookie.key: cookie.value for cookie in cookies}
    async with running_server(tmp_path, key=first.key, port=port) as second, browser_at(second) as browser:
        browser.http.cookie_jar.update_cookies(copied, URL(second.url))
        browser.csrf = csrf
        assert (await browser("GET", "/accounts/projects"))[0] == 200


async def test_two_servers_of_one_machine_keep_their_sessions_apart(server: RunningServer, tmp_path: Path) -> None:
    async with running_server(tmp_path / "other", key=None) as other, browser_at(server) as browser:
        await browser.sign_in(key=server.api_key)
        async with browser.http.get(f"{other.url}/studio/api/session") as answer:
            assert (await answer.json())["role"] is None


# --- Requests of other pages


async def test_another_pages_request_is_refused(browser: Browser) -> None:
    forged = [
        {CSRF_HEADER: ""},
        {CSRF_HEADER: "wrong"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ]
    await browser.sign_in(key=browser.server.api_key)
    for headers in forged:
        for method, path in (("GET", "/rooms/den/queues"), ("POST", "/rooms/den/queues/jobs/messages")):
            assert (await browser(method, path, headers=headers, json={}))[0] == 403, (method, headers)


async def test_a_change_must_say_where_it_comes_from(browser: Browser) -> None:
    await browser.sign_in(key=browser.server.api_key)
    nowhere = {"Origin": "", "Sec-Fetch-Site": ""}
    # Over HTTP to another machine, browsers say it of changes only.
    assert (await browser("GET", "/rooms/den/queues", headers=nowhere))[0] == 200
    assert (await browser("POST", "/rooms/den/queues/jobs/messages", headers=nowhere, json={}))[0] == 403


async def test_another_page_can_not_sign_a_browser_in(browser: Browser) -> None:
    body = {"key": browser.server.api_key}
    status, _ = await browser("POST", "/studio/api/session", json=body, headers={"Origin": "http://evil.example"})
    assert status == 403


async def test_a_cookie_does_not_open_a_room_by_itself(browser: Browser) -> None:
    await browser.sign_in(key=browser.server.api_key)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await browser.http.ws_connect(f"{browser.server.url}/rooms/den")
    assert refused.value.status == 401


# --- Codes and tokens


async def test_a_printed_link_signs_in_once(browser: Browser) -> None:
    link = browser.server.server.studio_link(browser.server.key)
    assert link.startswith(f"{browser.server.url}/studio/#code=")
    code = link.partition("#code=")[2]
    status, body = await browser.sign_in(code=code)
    assert (status, body["role"]) == (200, "admin")
    status, body = await browser.sign_in(code=code)
    assert (status, "meshhost studio" in body["error"]) == (401, True)


async def test_the_operators_link_signs_the_operator_in(browser: Browser) -> None:
    code = browser.server.server.studio_link(None).partition("#code=")[2]
    assert (await browser.sign_in(code=code))[1]["role"] == "operator"


async def test_a_key_makes_links_with_its_own_rights(browser: Browser) -> None:
    key = await new_key(browser.server, role="viewer")
    headers = {"Authorization": f"Bearer {key}"}
    status, made = await browser("POST", "/studio/api/link", headers=headers)
    assert (status, made["expires_in"]) == (200, 600.0)
    assert (await browser.sign_in(code=made["url"].partition("#code=")[2]))[1]["role"] == "viewer"


async def test_a_session_joins_a_room_by_a_token_of_its_key(browser: Browser) -> None:
    key = await new_key(browser.server, role="developer")
    await browser.sign_in(key=key)
    status, made = await browser("POST", "/studio/api/rooms/den/token", json={"name": "ada"})
    assert (status, made["name"], made["room"]) == (200, "ada", "den")
    assert time.time() < made["expires"] <= time.time() + 3600
    url = f"{browser.server.url}/rooms/den?token={made['jwt']}"
    async with browser.http.ws_connect(url) as socket:
        await socket.receive(timeout=10)
        project = browser.server.key.project_id
        await as_operator(browser.server, "DELETE", f"/tenants/{project}/keys/{parse_api_key(key).id}")
        async with asyncio.timeout(10):
            async for _ in socket:
                pass
        assert socket.closed


async def test_a_page_comes_back_as_itself_and_wakes_no_room_that_it_looks_at(browser: Browser) -> None:
    await browser.sign_in(key=browser.server.api_key)
    _, made = await browser("POST", "/studio/api/rooms/den/token", json={"name": "ada"})
    url = f"{browser.server.url}/rooms/den?token={made['jwt']}&look=1"
    async with browser.http.ws_connect(f"{url}&resume=-"):
        [room] = browser.server.server.rooms
        [ada] = room.connected()
        assert not room.is_awake
        async with browser.http.ws_connect(f"{url}&resume={ada.resume_token}"):
            assert [member.id for member in room.connected()] == [ada.id]


async def test_a_token_takes_names_that_can_be_shown(browser: Browser) -> None:
    await browser.sign_in(key=browser.server.api_key)
    names: list[Any] = ["x" * 65, "a\u202e", 7]
    for name in names:
        assert (await browser("POST", "/studio/api/rooms/den/token", json={"name": name}))[0] == 400, name


def test_a_code_is_good_for_ten_minutes_and_few_are_kept() -> None:
    clock = FakeClock()
    codes = OneTimeCodes(clock)
    of = CodeOf("p", "k")
    others = [codes.make(CodeOf(None, None)), codes.make(CodeOf("another", "k"))]
    first = codes.make(of)
    kept = [codes.make(of) for _ in range(100)]
    with pytest.raises(InvalidTokenError):
        codes.use(first)
    assert codes.use(kept[0]) == of
    assert [codes.use(code).project for code in others] == [
        None,
        "another",
    ]  # a flood of one tenant's takes only its own
    clock.skip(CODE_SECONDS + 1)
    with pytest.raises(InvalidTokenError):
        codes.use(kept[1])
