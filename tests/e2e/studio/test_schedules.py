"""Schedules in a real browser: made with a preview of their next times, run, paused, resumed; what was sent is a message."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as running:
        yield running


async def test_a_schedule_is_made_previewed_paused_and_resumed(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    page = await studio.open(server.server.studio_link(server.key), expected=("400",))
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await page.goto(f"{server.url}/studio/rooms/den/schedules")
    await page.get_by_role("button", name="New schedule").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("nightly report")
    await dialog.get_by_label("Queue").fill("reports")
    await dialog.get_by_label("Cron line").fill("30 2 31 2 *x")
    await expect(dialog.locator(".note[data-tone=bad]")).to_be_visible()
    await dialog.get_by_label("Cron line").fill("30 2 * * *")
    times = dialog.locator("ol.times li")
    await expect(times).to_have_count(5)
    shown = [
        datetime.strptime(text.partition(" CE")[0], "%d %b %Y, %H:%M:%S").replace(tzinfo=UTC)
        for text in await times.all_inner_texts()
    ]
    assert [(each.hour, each.minute) for each in shown] == [(2, 30)] * 5
    assert [(after.date() - before.date()).days for before, after in pairwise(shown)] == [1] * 4
    await dialog.get_by_label("Message", exact=True).fill('{"week": 48}')
    assert await serious_issues(page) == []
    await dialog.get_by_role("button", name="Make the schedule").click()

    row = page.get_by_role("row", name="nightly report")
    await expect(row.get_by_text("30 2 * * *")).to_be_visible()
    await row.get_by_role("button", name="Pause").click()
    await expect(row.get_by_text("paused")).to_be_visible()
    await page.reload()
    await expect(row.get_by_text("paused")).to_be_visible()
    await row.get_by_role("button", name="Resume").click()
    await expect(row.get_by_text("paused")).to_have_count(0)
    await page.reload()
    await expect(row.get_by_role("button", name="Pause")).to_be_visible()

    await row.get_by_role("button", name="Run now").click()
    await expect(page.get_by_text("Sent as message")).to_be_visible()
    await row.get_by_role("button", name="nightly report", exact=True).click()
    await dialog.get_by_role("link", name="message").first.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Message")
    await expect(page.locator("pre", has_text='"week": 48')).to_be_visible()
    await studio.close()
