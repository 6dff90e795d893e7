"""Studio by keyboard alone, in a real browser: the sheet of keys, the palette, pages, dialogs that give the focus back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as running:
        room = RoomKey(TenantId(running.key.project_id), "den")
        for name in ("orders", "ordinary"):
            await running.server.engines.queues.send(QueueKey(room, name), NewMessage(body='{"a": 1}'))
        yield running


async def test_the_palette_finds_and_goes_by_keys_alone(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    page = await studio.open(server.server.studio_link(server.key))
    await expect(page.get_by_role("link", name="den", exact=True)).to_be_visible()
    await page.keyboard.press("/")
    search = page.get_by_role("combobox")
    await expect(search).to_be_focused()
    await page.keyboard.type("ord")
    options = page.get_by_role("option")
    await expect(options).to_have_count(2)
    assert await serious_issues(page) == []
    await expect(options.nth(0)).to_have_attribute("aria-selected", "true")
    wanted = await options.nth(1).locator(".clip").inner_text()
    await page.keyboard.press("ArrowDown")
    await expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(wanted.partition(" · ")[0])
    await expect(search).to_have_count(0)

    # Also while one types, and back to where one was.
    field = page.get_by_label("Contains the text")
    await field.focus()
    await page.keyboard.type("/?g")
    await expect(field).to_have_value("/?g")
    await page.keyboard.press("Control+k")
    await expect(search).to_be_focused()
    await page.keyboard.type("nothing of this name")
    await expect(page.get_by_text("Nothing of that name")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(search).to_have_count(0)
    await expect(field).to_be_focused()
    await studio.close()


async def test_a_sheet_lists_the_keys_and_they_go_where_it_says(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    page = await studio.open(server.server.studio_link(server.key))
    await expect(page.get_by_role("link", name="den", exact=True)).to_be_visible()
    await page.goto(f"{server.url}/studio/rooms/den")
    await expect(page.get_by_role("heading", level=1)).to_have_text("den")
    await page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard")
    await expect(sheet).to_be_visible()
    assert await serious_issues(page) == []
    rows = await sheet.locator("dt").all_inner_texts()
    await page.keyboard.press("Escape")
    await expect(sheet).to_have_count(0)
    places = {
        "q": "Queues of den",
        "s": "Schedules of den",
        "f": "Files of den",
        "t": "Talk in den",
        "d": "Documents of den",
    }
    places |= {"k": "Hooks of den", "r": "Traces of den", "l": "Log of den", "o": "den", "h": "default"}
    assert {row.split()[1] for row in rows if row.startswith("g")} == set(places)
    for key, heading in places.items():
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        if key == "h":
            await expect(page).to_have_url(f"{server.url}/studio/")
        else:
            await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    await studio.close()


async def test_a_page_is_used_by_tab_enter_and_escape(server: RunningServer, studio: Any) -> None:
    page = await studio.open(server.server.studio_link(server.key))
    await expect(page.get_by_role("link", name="den", exact=True)).to_be_visible()
    await page.goto(f"{server.url}/studio/rooms/den/queues/orders")
    await expect(page.get_by_role("heading", level=1)).to_have_text("orders")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()  # so that a screen reader says where one is
    pause = page.get_by_role("button", name="Pause", exact=True)
    await page.keyboard.press("Tab")
    await expect(pause).to_be_focused()
    await page.get_by_role("link", name="Skip to the page").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(pause).to_be_focused()
    send = page.get_by_role("button", name="Send", exact=True).first
    await send.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    for _ in range(30):  # the focus stays in the dialog
        await page.keyboard.press("Tab")
        inside = await page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert inside
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(send).to_be_focused()
    await studio.close()
