"""The log of one message on its page, in a real browser: live while a worker works on it, from its code's own logging."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from meshhost.agents.worker import Worker
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SCRIPT = "<img src=x onerror=alert(1)>"
TURNED = f"\u202e{SCRIPT}"
logger = logging.getLogger("my_program")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as running:
        yield running


class Slow(Worker):
    """Says what it does, and goes on when the test says so."""

    def __init__(self) -> None:
        super().__init__(queue="jobs", name="poet", llm_adapter=ScriptedLLM(default="done"))
        self.goes_on = asyncio.Event()

    async def process_message(self, *, message: Any, **_: Any) -> Any:
        logger.warning("asks for %s", message, extra={"city": TURNED})
        if message == "quick":
            return "done"
        await self.goes_on.wait()
        await asyncio.to_thread(logger.error, SCRIPT)
        raise ValueError("out of ink")


@asynccontextmanager
async def at_work(server: RunningServer) -> AsyncIterator[tuple[Slow, Any]]:
    worker = Slow()
    async with server.client("den", name="poet", role="agent") as room, server.client("den") as user:
        await worker.start(room=room)
        try:
            yield worker, user
        finally:
            await worker.stop()


async def test_what_a_worker_logs_is_read_beside_its_message_as_it_comes(
    server: RunningServer, studio: Any, in_every_light: Any
) -> None:
    page = await studio.open(server.server.studio_link(server.key))
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    async with server.client("den") as user:
        sent = await user.queues.send(name="jobs", message="a poem")
        await user.queues.send(name="jobs", message="quick")
    await page.goto(f"{server.url}/studio/rooms/den/queues/jobs/{sent}")
    card = page.get_by_role("region", name="Log", exact=True)
    await expect(card.get_by_role("heading", name="No lines yet")).to_be_visible()
    async with at_work(server) as (worker, _):
        lines = card.get_by_role("listitem")
        await expect(lines).to_have_count(1)
        await expect(lines.first).to_contain_text("asks for a poem")
        await expect(lines.first).to_contain_text(f"city={TURNED}")
        await expect(lines.first).to_contain_text("attempt=1")
        # What turns its direction around turns only itself.
        await expect(lines.first.locator("bdi").filter(has_text="city=")).to_have_text(f"city={TURNED}")
        await expect(lines.first).not_to_contain_text("message_id")
        worker.goes_on.set()
        await expect(lines.nth(1)).to_contain_text(SCRIPT)
        await expect(lines.nth(2)).to_contain_text("processing failed")
        await expect(lines.nth(2)).to_contain_text("out of ink")
        assert await in_every_light(page) == []
        await card.get_by_role("link", name="Log of").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Log of den")
        await expect(page.get_by_role("log").get_by_text("asks for quick")).to_be_visible()
    await studio.close()


async def test_a_message_that_is_done_says_that_its_contents_are_gone(server: RunningServer, studio: Any) -> None:
    page = await studio.open(server.server.studio_link(server.key))
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    async with at_work(server) as (_, user):
        sent = await user.queues.send(name="jobs", message="quick")
        await user.queues.wait("jobs", str(sent), timeout=15)
        await page.goto(f"{server.url}/studio/rooms/den/queues/jobs")
        await expect(page.locator(".message-row")).to_contain_text("result: done")
        await page.locator(".message-row").click()
        await expect(page.get_by_text("The server keeps what was sent only until")).to_be_visible()
        await expect(page.get_by_role("button", name="Send again as new")).to_have_count(0)
        await expect(page.get_by_text("Deliveries")).to_have_count(0)
    await studio.close()


async def test_where_there_are_no_lines_the_card_says_why(
    server: RunningServer, studio: Any, in_every_light: Any
) -> None:
    async with server.client("den") as user:
        sent = await user.queues.send(name="jobs", message=1)
        leased = await user.queues.lease(name="jobs")
        assert leased is not None
        page = await studio.open(server.server.studio_link(server.key))
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await page.goto(f"{server.url}/studio/rooms/den/queues/jobs/{sent}")
        card = page.get_by_role("region", name="Log", exact=True)
        await expect(card.get_by_role("heading", name="Nothing logged yet")).to_be_visible()
        await leased.ack()
        await expect(card.get_by_role("heading", name="No lines are kept of it")).to_be_visible()
        assert await in_every_light(page) == []
    await studio.close()
