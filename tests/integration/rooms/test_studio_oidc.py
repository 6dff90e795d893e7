"""Signing in to Studio by a provider of OpenID Connect: roles by groups, and everything that must not sign anybody in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from doubles.oidc import CLIENT_ID, CLIENT_SECRET, OidcProvider, new_key
from pydantic import ValidationError

from meshhost.app.config_file import ServerFile
from meshhost.errors import SettingsError
from meshhost.server.http.sessions import CSRF_HEADER
from meshhost.testing.server import RunningServer, running_server

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
ROLES = [
    {"group": "platform", "role": "operator"},
    {"group": "acme-dev", "role": "developer", "tenant": "acme"},
    {"group": "acme-look", "role": "viewer", "tenant": "acme"},
    {"group": "lost", "role": "viewer", "tenant": "nobody"},
]


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with OidcProvider() as running:
        yield running


def file_for(provider: OidcProvider, tmp_path: Path) -> ServerFile:
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    oidc = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret_file": secret,
        "name": "Acme",
        "roles": ROLES,
    }
    return ServerFile.model_validate({"studio": {"oidc": oidc}})


@pytest.fixture
async def server(provider: OidcProvider, tmp_path: Path) -> AsyncIterator[RunningServer]:
    options: Any = {"operator_key": OPERATOR_KEY, "file": file_for(provider, tmp_path)}
    async with running_server(tmp_path / "data", **options) as running, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
        async with http.post(f"{running.url}/tenants", json={"name": "acme"}, headers=headers) as made:
            acme = (await made.json())["id"]
        async with http.post(f"{running.url}/tenants/{acme}/keys", json={}, headers=headers) as made:
            assert made.status == 200
        yield running


@asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield http


async def signed_in(server: RunningServer, http: aiohttp.ClientSession, *, to: str = "/studio/") -> Any:
    """Go through a sign-in; returns the session, or the text of the error."""
    async with http.get(f"{server.url}/studio/api/oidc/start", params={"return": to}) as answer:
        final = answer.url
    if "sign_in_error" in final.query:
        return final.query["sign_in_error"]
    assert final.path == to
    async with http.get(f"{server.url}/studio/api/session") as answer:
        return await answer.json()


async def test_a_person_of_a_group_has_its_role_in_its_tenant(provider: OidcProvider, server: RunningServer) -> None:
    provider.groups = ["staff", "acme-dev"]
    async with browser() as http:
        async with http.get(f"{server.url}/studio/api/session") as answer:
            nobody = await answer.json()
        assert (nobody["sign_in"], nobody["oidc"]) == (["key", "code", "oidc"], {"name": "Acme"})
        session = await signed_in(server, http, to="/studio/rooms/den")
        assert (session["role"], session["name"], session["tenant"]["name"]) == ("developer", "ada@example.com", "acme")
        headers = {CSRF_HEADER: session["csrf"], "Origin": server.url}

        async def ask(method: str, path: str, **body: Any) -> tuple[int, Any]:
            async with http.request(method, server.url + path, json=body or None, headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)

        assert (await ask("POST", "/rooms/den/queues/jobs/messages", a=1))[0] == 200
        assert (await ask("GET", "/rooms/den/queues"))[1]["queues"][0]["ready"] == 1
        assert (await ask("POST", f"/tenants/{session['tenant']['id']}/keys", name="x"))[0] == 403
        assert (await ask("GET", "/tenants"))[0] == 403
        status, made = await ask("POST", "/studio/api/rooms/den/token", name="somebody else")
        assert (status, made["name"]) == (200, "ada@example.com")
        async with http.ws_connect(f"{server.url}/rooms/den?token={made['jwt']}") as socket:
            await socket.receive(timeout=10)
        status, answer = await ask("POST", "/studio/api/link")
        assert (status, "your provider" in answer["error"]) == (403, True)
        assert (await ask("POST", f"/tenants/{session['tenant']['id']}/suspend", reason="x"))[0] == 403


async def test_the_first_group_of_the_configuration_counts(provider: OidcProvider, server: RunningServer) -> None:
    provider.groups = ["acme-look", "platform"]
    async with browser() as http:
        session = await signed_in(server, http)
        assert (session["role"], session["tenant"], session["name"]) == ("operator", None, "ada@example.com")
        headers = {CSRF_HEADER: session["csrf"]}
        async with http.get(f"{server.url}/tenants", headers=headers) as answer:
            assert answer.status == 200
        provider.groups = ["acme-look"]
        assert (await signed_in(server, http))["role"] == "viewer"


async def test_a_key_that_the_provider_renewed_is_read_again(
    provider: OidcProvider, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.server.studio.oidc._KEYS_SECONDS", 0.0)
    provider.groups = ["acme-look"]
    async with browser() as http:
        assert (await signed_in(server, http))["role"] == "viewer"
        provider.rotate()
        assert (await signed_in(server, http))["role"] == "viewer"


async def test_what_is_not_right_signs_nobody_in(provider: OidcProvider, server: RunningServer) -> None:
    provider.groups = ["acme-dev"]
    wrong: list[dict[str, Any]] = [
        {"aud": "another"},
        {"iss": "http://127.0.0.1:1"},
        {"exp": 1},
        {"nonce": "another"},
        {"groups": []},
        {"groups": ["lost"]},
        {"groups": [{"acme-dev": 1}]},
        {"groups": 7},
    ]
    async with browser() as http:
        for change in wrong:
            provider.change = change
            assert isinstance(await signed_in(server, http), str), change
        provider.change = {}
        provider.signing_key = new_key()
        assert "not valid" in await signed_in(server, http)
        async with http.get(f"{server.url}/studio/api/session") as answer:
            assert (await answer.json())["role"] is None


async def test_a_callback_that_this_browser_did_not_ask_for_signs_nobody_in(
    provider: OidcProvider, server: RunningServer
) -> None:
    provider.groups = ["acme-dev"]
    async with browser() as mine, browser() as theirs:
        async with mine.get(f"{server.url}/studio/api/oidc/start", allow_redirects=False) as answer:
            start = answer.headers["Location"]
        async with mine.get(start, allow_redirects=False) as answer:
            callback = answer.headers["Location"]
        for address in (callback, callback.replace("state=", "state=x")):
            async with theirs.get(address, allow_redirects=False) as answer:
                assert answer.headers["Location"].startswith("/studio/?sign_in_error=")
        async with mine.get(
            f"{server.url}/studio/api/oidc/callback", params={"error": "access_denied", "state": "x"}
        ) as answer:
            assert "sign_in_error" in answer.url.query


async def test_one_goes_on_at_a_page_of_studio_only(provider: OidcProvider, server: RunningServer) -> None:
    provider.groups = ["acme-look"]
    async with browser() as http:
        for target in ("https://evil.example/", "//evil.example", "/studio\\evil", "/studioevil", "/studio/\nx"):
            async with http.get(f"{server.url}/studio/api/oidc/start", params={"return": target}) as answer:
                assert answer.url.path == "/studio/", target
    [first, *_] = provider.asked
    assert parse_qs(urlsplit(first["redirect_uri"]).path) == {}
    assert len({asked["state"] for asked in provider.asked}) == len(provider.asked)


async def test_a_provider_that_does_not_answer_is_said_on_the_page(tmp_path: Path) -> None:
    async with OidcProvider() as gone:
        file = file_for(gone, tmp_path)
    async with running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=file) as server, browser() as http:
        assert await signed_in(server, http) == "Acme cannot be reached"


async def test_a_provider_that_hangs_is_asked_once_whoever_wants_to_sign_in_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("meshhost.server.studio.oidc._SECONDS", 0.3)
    asked: list[asyncio.StreamWriter] = []
    async with OidcProvider() as gone:
        file = file_for(gone, tmp_path)
    hanging = await asyncio.start_server(
        lambda _, writer: asked.append(writer), "127.0.0.1", urlsplit(gone.issuer).port
    )
    async with running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=file) as server, browser() as http:
        texts = await asyncio.gather(*(signed_in(server, http) for _ in range(10)))
    assert (set(texts), len(asked)) == ({"Acme cannot be reached"}, 1)
    assert sum("a sign-in with OpenID Connect failed" in record.message for record in caplog.records) == 1
    for writer in asked:
        writer.close()
    hanging.close()


async def test_sessions_of_persons_need_the_operators_key(provider: OidcProvider, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="operator's key"):
        async with running_server(tmp_path / "data", file=file_for(provider, tmp_path)):
            pass


@pytest.mark.parametrize(
    "role",
    [
        {"group": "g", "role": "operator", "tenant": "acme"},
        {"group": "g", "role": "viewer"},
        {"group": "", "role": "operator"},
        {"group": "g", "role": "owner", "tenant": "acme"},
    ],
)
def test_a_role_that_makes_no_sense_is_an_error(role: dict[str, str]) -> None:
    oidc = {"issuer": "https://sso.example", "client_id": "c", "roles": [role]}
    with pytest.raises(ValidationError):
        ServerFile.model_validate({"studio": {"oidc": oidc}})
