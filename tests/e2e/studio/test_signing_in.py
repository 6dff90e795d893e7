"""Signing in to Studio by the printed link, in a real browser: once, and with nothing of it left in the address."""

from typing import Any

import pytest
from playwright.async_api import expect

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
