"""The main story in a real browser: sign in by the link, send the instruction, see the work done, read the poem."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import expect

from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

POEM = "Silicon dreams in rows of light."


@pytest.fixture
async def upstream(home_with_studio: Any) -> AsyncIterator[ScriptedUpstream]:
    """A provider that the room server's gateway uses."""
    async with ScriptedUpstream() as provider:
        variables = {"OPENAI_BASE_URL": provider.base_url, "OPENAI_API_KEY": "key-of-the-gateway"}
        home_with_studio.environment |= variables
        yield provider


async def test_from_the_instruction_to_the_poem(
    home_with_studio: Any, upstream: ScriptedUpstream, studio: Any, link_in: Any, serious_issues: Any
) -> None:
    upstream.call_tool("write_file", {"path": "poem.txt", "text": POEM, "overwrite": True}).say("done")
    async with home_with_studio.service("main.py") as service:
        page = await studio.open(link_in(service.lines))
        await page.get_by_role("link", name="queue-test").first.click()
        await expect(page.get_by_text("storage-worker").first).to_be_visible()
        assert await serious_issues(page) == []

        await page.get_by_role("link", name="Queues").click()
        await page.get_by_role("button", name="Send").first.click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Queue", exact=True).fill("test")
        await dialog.get_by_label("Message", exact=True).fill('{"instructions": "save a poem about ai to poem.txt"}')
        assert await serious_issues(page) == []
        await dialog.get_by_role("button", name="Send", exact=True).click()

        await expect(page.get_by_text("done", exact=True).first).to_be_visible()
        assert await serious_issues(page) == []

        await page.get_by_role("link", name="Files").click()
        await page.get_by_role("link", name="poem.txt").click()
        await expect(page.get_by_text(POEM)).to_be_visible()
        assert await serious_issues(page) == []
        await studio.close()
