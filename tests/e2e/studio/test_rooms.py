"""Rooms in real browsers: a server that is killed under open pages, an upload that it cuts, two people who see each other."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles.relay import Relay
from playwright.async_api import Page, expect

from meshhost.app.config_file import ServerFile
from meshhost.server.services.storage.service import StorageService
from meshhost.testing.server import running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# What a page says on its console when its server is killed.
GONE = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "WebSocket")


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something that nobody announces holds."""
    async with asyncio.timeout(60):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


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


async def test_an_upload_goes_on_where_its_connection_was_cut(studio: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(50 * 1024 * 1024))
    patient = ServerFile.model_validate({"server": {"resume_seconds": 300}})
    async with running_server(tmp_path / "server", file=patient) as server, Relay(server.url) as network:
        link = server.server.studio_link(server.key).replace(server.url, network.url)
        page = await studio.open(link, expected=GONE)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await page.goto(f"{network.url}/studio/rooms/den/files")
        await expect(page.get_by_text("No files yet")).to_be_visible()
        await page.locator("input[type=file]").set_input_files(large)
        await expect(page.get_by_label("Upload of large.bin")).not_to_have_js_property("value", 0)
        [room] = server.server.rooms
        uploads = server.server.service(StorageService).uploads(room)
        begun = list(uploads)
        for _ in range(3):
            size = max(each.file.size for each in uploads.values())
            network.cut()
            await until(lambda size=size: not uploads or max(each.file.size for each in uploads.values()) > size)
            assert list(uploads) in (begun, [])  # the same one
        await expect(page.get_by_text("52 MB stored")).to_be_visible()
        stored = await server.server.engines.files.read(room.key, "large.bin", max_bytes=100_000_000)
        assert stored == large.read_bytes()

        # One that is stopped frees its place at once.
        await page.locator("input[type=file]").set_input_files(large.rename(tmp_path / "other.bin"))
        await expect(page.get_by_label("Upload of other.bin")).not_to_have_js_property("value", 0)
        await page.get_by_role("button", name="Stop other.bin").click()
        await until(lambda: not uploads)
        await expect(page.get_by_text("other.bin")).to_have_count(0)
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
