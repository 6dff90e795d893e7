"""Signing in to Studio in a real browser: by the printed link, once, and at a provider of OpenID Connect."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.oidc import CLIENT_ID, CLIENT_SECRET, OidcProvider
from playwright.async_api import Page, expect

from meshhost.app.config_file import ServerFile
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def test_the_printed_link_signs_in_once_and_shows_the_rooms(
    home_with_studio: Any, studio: Any, link_in: Any, serious_issues: Any
) -> None:
    home = home_with_studio
    async with home.room_server() as server:
        await server.line("/studio/#code=")
        link = link_in(server.lines)
        await home.send()
        page = await studio.open(link)
        await expect(page.get_by_role("link", name="queue-test")).to_be_visible()
        assert "code=" not in page.url
        assert await serious_issues(page) == []

        await page.reload()
        await expect(page.get_by_role("link", name="queue-test")).to_be_visible()

        stranger = await studio.open(link, expected=("401",))
        await expect(stranger.get_by_text("used before")).to_be_visible()
        await studio.close()


OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
ROLES = [
    {"group": "platform", "role": "operator"},
    {"group": "acme-dev", "role": "developer", "tenant": "acme"},
    {"group": "acme-look", "role": "viewer", "tenant": "acme"},
]


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with OidcProvider() as running:
        yield running


@pytest.fixture
async def server(provider: OidcProvider, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A room server whose people sign in at the provider, with the tenant `acme`."""
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    oidc = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret_file": secret,
        "name": "Acme",
        "roles": ROLES,
    }
    file = ServerFile.model_validate({"studio": {"oidc": oidc}})
    async with (
        running_server(tmp_path / "data", operator_key=OPERATOR_KEY, file=file) as running,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {OPERATOR_KEY}"}) as http,
    ):
        async with http.post(f"{running.url}/tenants", json={"name": "acme"}) as made:
            assert made.status == 200
        yield running


async def make_key(server: RunningServer) -> None:
    """Make a key of the tenant `acme`, with which tokens of its people are signed."""
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{server.url}/tenants/acme/keys", json={}) as made,
    ):
        assert made.status == 200


async def sign_in(studio: Any, server: RunningServer, path: str, **options: Any) -> Page:
    """A person who opens this path and signs in at the provider."""
    page: Page = await studio.open(f"{server.url}/studio{path}", **options)
    await page.get_by_role("link", name="Sign in with Acme").click()
    return page


async def test_people_of_a_provider_have_the_roles_of_their_groups_and_see_each_other(
    provider: OidcProvider, server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    provider.groups = ["staff", "acme-dev"]
    ada = await sign_in(studio, server, "/rooms/den", expected=("403",))
    await expect(ada.get_by_role("heading", level=1)).to_have_text("den")
    assert ada.url == f"{server.url}/studio/rooms/den"  # where she wanted to go, with no code and no state
    [asked] = provider.asked
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["redirect_uri"] == f"{server.url}/studio/api/oidc/callback"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    await expect(ada.get_by_text("acme · developer")).to_be_visible()
    await expect(ada.get_by_role("link", name="Tenants")).to_have_count(0)
    await expect(ada.get_by_role("button", name="Another device")).to_have_count(0)

    # Without a key nobody joins a room, which is said and ends no session.
    await ada.get_by_role("link", name="Files").click()
    await expect(ada.get_by_text("the tenant has no API key")).to_be_visible()
    await make_key(server)
    await ada.get_by_role("link", name="Overview").click()

    provider.change = {"email": "bob@example.com"}
    bob = await sign_in(studio, server, "/rooms/den")
    await expect(bob.get_by_text("Nobody is here")).to_be_visible()
    await ada.get_by_role("link", name="Files").click()
    await expect(bob.get_by_role("row", name="ada@example.com")).to_be_visible()
    await bob.get_by_role("link", name="Talk").click()
    await ada.get_by_role("link", name="Overview").click()
    await expect(ada.get_by_role("row", name="bob@example.com")).to_be_visible()
    await bob.close()
    await expect(ada.get_by_role("row", name="bob@example.com")).to_have_count(0)

    provider.groups = ["acme-look"]
    viewer = await sign_in(studio, server, "/")
    await expect(viewer.get_by_text("acme · viewer")).to_be_visible()
    provider.groups = ["platform"]
    operator = await sign_in(studio, server, "/")
    await operator.get_by_role("link", name="Tenants").click()
    await expect(operator.get_by_role("link", name="acme")).to_be_visible()
    await operator.get_by_role("button", name="Sign out").click()
    await expect(operator.get_by_role("link", name="Sign in with Acme")).to_be_visible()
    assert await serious_issues(operator) == []
    await studio.close()


async def test_what_the_provider_says_wrongly_signs_nobody_in_and_is_explained(
    provider: OidcProvider, server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    page = await sign_in(studio, server, "/")
    await expect(page.get_by_text("none of your groups has a role here")).to_be_visible()
    assert "sign_in_error" not in page.url
    assert await serious_issues(page) == []
    provider.groups = ["acme-dev"]
    for change, said in (
        ({"nonce": "another"}, "is for another sign-in"),
        ({"aud": "another"}, "is not valid"),
        ({"iss": "https://evil.example.com"}, "is not valid"),
        ({"exp": 1}, "is not valid"),
    ):
        provider.change = change
        await page.get_by_role("link", name="Sign in with Acme").click()
        await expect(page.get_by_text(said)).to_be_visible()
        await expect(page.get_by_label("API key")).to_be_visible()
    provider.change = {}
    # A link that somebody else made, with a code of theirs: this browser did not begin it.
    await page.goto(f"{server.url}/studio/api/oidc/callback?code=theirs&state=theirs")
    await expect(page.get_by_text("begin again")).to_be_visible()
    await page.get_by_role("link", name="Sign in with Acme").click()
    await expect(page.get_by_text("acme · developer")).to_be_visible()
    await studio.close()
