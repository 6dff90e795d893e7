"""Long lists in a real browser: pages of files come as one scrolls, and long tables draw only what is in view."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, expect

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FILES = 2500
ROOMS = 450


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as running:
        yield running


async def signed_in(server: RunningServer, studio: Any, path: str) -> Page:
    person = await studio.person()
    answer = await person.request.post(f"{server.url}/studio/api/session", data={"key": server.api_key})
    assert answer.ok
    page: Page = await studio.open(f"{server.url}/studio{path}", person)
    return page


async def scrolled_to(page: Page, text: str, *, row: str) -> None:
    """Scroll to the end of what is loaded until a row has this text."""
    found = page.locator(row).filter(has_text=text)
    while not await found.count():
        await page.locator(".virtual").evaluate(
            "async (box) => { box.scrollTop = box.scrollHeight; await new Promise(requestAnimationFrame) }"
        )
    await expect(found.first).to_be_attached()


async def test_a_folder_of_many_files_comes_page_by_page_and_shows_changes(
    server: RunningServer, studio: Any, tmp_path: Path, serious_issues: Callable[..., Any]
) -> None:
    files, room = server.server.engines.files, RoomKey(TenantId(server.key.project_id), "den")
    await files.write(room, "many/0000", io.BytesIO(b"1"), overwrite=True)
    (first,) = [each for each in tmp_path.rglob("many/0000") if each.is_file()]  # noqa: ASYNC240 - a test's own folder
    for number in range(1, FILES):
        first.with_name(f"{number:04}").touch()
    page = await signed_in(server, studio, "/rooms/den/files/many")
    await expect(page.get_by_role("link", name="0001")).to_be_visible()
    assert await page.locator(".file-row").count() < 100
    await scrolled_to(page, "2499", row=".file-row")
    assert await page.locator(".file-row").count() < 100

    # Each name once, whichever page it was in.
    names = await page.locator(".virtual").evaluate(
        """async (box) => {
          const names = new Set();
          for (box.scrollTop = 0; ; box.scrollTop += 400) {
            await new Promise(requestAnimationFrame);
            await new Promise(requestAnimationFrame);
            const shown = [...box.querySelectorAll(".file-row .clip")].map((each) => each.textContent);
            if (new Set(shown).size !== shown.length) throw new Error("a name is shown twice");
            shown.forEach((name) => names.add(name));
            if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) return names.size;
          }
        }"""
    )
    assert names == FILES + 1  # and the folder above

    # Somebody writes and deletes: what is shown is put right without reading the folder again.
    async with server.client("den", name="ada") as ada:
        await page.locator(".virtual").evaluate("(box) => { box.scrollTop = 0 }")
        await ada.storage.upload(path="many/0000a", data=b"new")
        await expect(page.get_by_role("link", name="0000a")).to_be_visible()
        await ada.storage.delete("many/0000a")
        await expect(page.get_by_role("link", name="0000a")).to_have_count(0)

    await page.get_by_label("Name begins with").fill("249")
    await expect(page.locator(".file-row")).to_have_count(11)
    assert await serious_issues(page) == []
    await page.get_by_label("Name begins with").fill("nothing")
    await expect(page.locator(".file-row")).to_have_count(1)
    # A file that is not loaded is known all the same when one of its name is chosen.
    await page.get_by_label("Name begins with").fill("")
    (tmp_path / "1999").write_text("mine")
    await page.locator("input[type=file]").set_input_files(tmp_path / "1999")
    await expect(page.get_by_text("There is a file of this name.")).to_be_visible()
    await studio.close()


async def test_many_rooms_and_participants_are_drawn_as_far_as_seen(
    server: RunningServer, studio: Any, serious_issues: Callable[..., Any]
) -> None:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    project = f"{server.url}/accounts/projects/{server.key.project_id}"
    async with aiohttp.ClientSession(headers=headers) as http:
        for number in range(ROOMS):
            async with http.post(f"{project}/rooms", json={"name": f"room-{number:03}"}) as answer:
                assert answer.ok, await answer.text()
    page = await signed_in(server, studio, "/")
    await expect(page.get_by_role("link", name="room-000")).to_be_visible()
    rows = page.get_by_role("table", name="Rooms").locator("tbody tr")
    assert await rows.count() < 100
    await scrolled_to(page, "room-449", row="tbody tr")
    assert await rows.count() < 100
    assert await serious_issues(page) == []

    members = [server.client("den", name=f"member-{number:03}") for number in range(80)]
    await asyncio.gather(*(member.__aenter__() for member in members))
    await page.goto(f"{server.url}/studio/rooms/den")
    await expect(page.get_by_text("member-0").first).to_be_visible()
    table = page.get_by_role("table", name="Participants")
    await expect(table).to_have_attribute("aria-rowcount", "81")
    await members.pop().__aexit__(None, None, None)
    # Who left is missing, without a second snapshot.
    await expect(table).to_have_attribute("aria-rowcount", "80")
    assert await serious_issues(page) == []
    await asyncio.gather(*(member.__aexit__(None, None, None) for member in members))
    await studio.close()
