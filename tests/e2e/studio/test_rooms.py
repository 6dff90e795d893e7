"""Rooms in real browsers: a server that is killed under open pages, an upload that it cuts, two people who see each other."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# What a page says on its console when its server is killed.
GONE = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "WebSocket")


async def signed_in(home: Any, studio: Any, path: str, **options: Any) -> Page:
    """A page at this path, of a person who signed in by a link of their own."""
    link = json.loads(await home.cli("studio", "--json"))["url"]
    person = await studio.person()
    page = await studio.open(link, person, **options)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await page.goto(link.partition("#")[0].rstrip("/") + path)
    return page


async def test_an_upload_outlives_its_server_and_another_person_sees_the_file(
    home_with_studio: Any, studio: Any, tmp_path: Path
) -> None:
    home, large = home_with_studio, tmp_path / "large.bin"
    large.write_bytes(os.urandom(50 * 1024 * 1024))
    async with home.room_server() as server:
        ada = await signed_in(home, studio, "/rooms/den/files", expected=GONE)
        bob = await signed_in(home, studio, "/rooms/den/files", expected=GONE)
        await expect(bob.get_by_text("No files yet")).to_be_visible()
        await ada.locator("input[type=file]").set_input_files(large)
        progress = ada.get_by_label("Upload of large.bin")
        await expect(progress).not_to_have_js_property("value", 0)
        server.signal(signal.SIGKILL)
        await server.exit_code()
        await expect(ada.get_by_text("The connection was cut")).to_be_visible()
    async with home.room_server():
        await expect(ada.get_by_text("52 MB stored")).to_be_visible()
        await expect(bob.get_by_role("link", name="large.bin")).to_be_visible()
        await studio.close()


async def test_a_page_says_that_its_server_is_gone_and_goes_on_when_it_is_back(
    home_with_studio: Any, studio: Any
) -> None:
    home = home_with_studio
    async with home.room_server() as server:
        page = await signed_in(home, studio, "/", expected=GONE)
        await expect(page.get_by_text("No rooms yet")).to_be_visible()
        server.signal(signal.SIGKILL)
        await server.exit_code()
        await expect(page.get_by_text("can't be reached").first).to_be_visible()
    async with home.room_server():
        await home.send()
        await expect(page.get_by_role("link", name="queue-test")).to_be_visible()
        await expect(page.get_by_text("can't be reached")).to_have_count(0)
        await studio.close()
