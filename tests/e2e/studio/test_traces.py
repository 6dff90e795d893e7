"""Traces in a real browser: found, opened as a waterfall, read with the keyboard; names that are scripts stay text. And axe."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from meshhost.app.config_file import ServerFile
from meshhost.room.client import RoomClient
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HTML = "<script>alert(1)</script>"
SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path) as running:
        yield running


async def a_failed_message(room: RoomClient) -> str:
    """A message that failed while an agent called a tool; returns its id."""
    sent = await room.queues.send(name="jobs", message={"secret": "words"})
    leased = await room.queues.lease(name="jobs")
    assert leased is not None
    trace, above = leased.headers["traceparent"].split("-")[1:3]
    begin = (leased.sent_at or 0.0) + 0.1
    spans = [
        {"id": "1" * 16, "parent": above, "name": "process jobs", "seconds": 4.0, "error": f"ValueError: {SCRIPT}"},
        {
            "id": "2" * 16,
            "parent": "1" * 16,
            "name": SCRIPT,
            "seconds": 2.0,
            "attributes": {"tool.name": SCRIPT, "a": HTML},
        },
        {"id": "3" * 16, "parent": "2" * 16, "name": "llm.turn", "seconds": 1.0, "attributes": {"llm.model": "gpt"}},
    ]
    made = [{"trace": trace, "begin": begin + number, **span} for number, span in enumerate(spans)]
    assert await room.send_request("traces.report", {"spans": made}) == {"kept": 3}
    await leased.nack(reason="failed", error="Traceback\nValueError: out of ink")
    return str(sent)


async def test_a_failed_message_is_followed_from_the_list_through_its_waterfall_to_its_page(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    async with server.client("den", name=SCRIPT, role="agent") as room:
        failed = await a_failed_message(room)
        await room.queues.send(name="mail", message=1)
        page = await studio.open(server.server.studio_link(server.key))
        await page.get_by_role("link", name="den", exact=True).first.click()
        await page.get_by_role("link", name="Traces").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Traces of den")
        rows = page.get_by_label("Traces, newest first").get_by_role("link")
        await expect(rows).to_have_count(2)
        wrong = await looked_at(page, serious_issues)
        await page.get_by_role("button", name="Failed only").click()
        await expect(rows).to_have_count(1)
        await page.get_by_label("Whole name of an agent").fill("nobody")
        await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
        await page.get_by_label("Whole name of an agent").fill("")
        await page.get_by_label("Id of a message").fill(failed)
        await expect(rows).to_have_count(1)
        await page.reload()
        await expect(page.get_by_label("Id of a message")).to_have_value(failed)
        await rows.first.click()

        await expect(page.get_by_role("heading", level=1)).to_have_text("send jobs")
        spans = page.get_by_label("Spans").get_by_role("button")
        await expect(spans).to_have_count(6)
        names = [await spans.nth(number).get_attribute("aria-label") for number in range(6)]
        shown = [str(name).rpartition(",")[0] for name in names]
        assert shown[0] == "send jobs"
        assert {"wait jobs", "failed: lease jobs", "failed: process jobs", f"{SCRIPT} {SCRIPT}", "llm.turn gpt"} == {
            *shown[1:]
        }
        wrong += await looked_at(page, serious_issues)

        # With the keyboard: to the tool, closed, opened, chosen.
        await page.get_by_role("button", name="process jobs").focus()
        await page.keyboard.press("ArrowDown")
        tool = page.get_by_role("button", name=SCRIPT)
        await expect(tool).to_be_focused()
        await page.keyboard.press("ArrowLeft")
        await expect(spans).to_have_count(5)
        await expect(tool).to_have_attribute("aria-expanded", "false")
        await page.keyboard.press("ArrowRight")
        await expect(spans).to_have_count(6)
        await page.keyboard.press("Enter")
        facts = page.get_by_role("region", name=f"Span {SCRIPT}")
        await expect(facts.get_by_text("tool.name")).to_be_visible()
        await expect(facts.get_by_role("link", name="its log")).to_be_visible()
        wrong += await looked_at(page, serious_issues)
        await page.get_by_role("button", name="lease jobs").click()
        await page.get_by_role("link", name=f"{failed} of jobs").click()

        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Message {failed}")
        card = page.get_by_role("region", name="Trace", exact=True)
        await expect(card.get_by_role("button", name="process jobs")).to_be_visible()
        wrong += await looked_at(page, serious_issues)
        await card.get_by_role("link", name="Open it").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("send jobs")
        assert wrong == []
        await studio.close()


async def looked_at(page: Any, serious_issues: Any) -> list[str]:
    """What is wrong with the page as it is, in both themes and widths."""
    wrong: list[str] = []
    for width in (1280, 390):
        await page.set_viewport_size({"width": width, "height": 800})
        await page.emulate_media(color_scheme="light")
        wrong += await serious_issues(page)
        await page.emulate_media(color_scheme="dark")
        wrong += await serious_issues(page, rules=["color-contrast"])
        if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"{page.url}: wider than {width}")
    await page.set_viewport_size({"width": 1280, "height": 800})
    if await page.locator("img[src=x], main script").count():
        wrong.append(f"{page.url}: a text became an element")
    return wrong


async def test_a_trace_appears_while_one_looks(server: RunningServer, studio: Any) -> None:
    async with server.client("den") as room:
        page = await studio.open(server.server.studio_link(server.key), expected=("404",))
        await page.goto(f"{server.url}/studio/rooms/den/traces")
        await expect(page.get_by_role("heading", name="No traces yet")).to_be_visible()
        await room.queues.send(name="jobs", message=1)
        rows = page.get_by_label("Traces, newest first").get_by_role("link")
        await expect(rows).to_have_count(1)
        await rows.first.click()
        await expect(page.get_by_label("Spans").get_by_role("button")).to_have_count(1)
        leased = await room.queues.lease(name="jobs")
        assert leased is not None
        await leased.ack()
        await expect(page.get_by_label("Spans").get_by_role("button")).to_have_count(3)
        await page.goto(f"{server.url}/studio/rooms/den/traces/{'f' * 32}")
        await expect(page.get_by_text("no such trace")).to_be_visible()
        await studio.close()


async def test_a_trace_of_which_nothing_came_for_long_is_followed_on(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    async with server.client("den", role="agent") as room:
        await room.queues.send(name="jobs", message=1)
        leased = await room.queues.lease(name="jobs")
        assert leased is not None
        page = await studio.open(server.server.studio_link(server.key))
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        # Ten minutes later, for this page.
        await page.clock.install(time=time.time() + 600)
        trace = leased.headers["traceparent"].split("-")[1]
        await page.goto(f"{server.url}/studio/rooms/den/traces/{trace}")
        spans = page.get_by_label("Spans").get_by_role("button")
        await expect(spans).to_have_count(2)
        await expect(page.get_by_text("Nothing came for 10 min")).to_be_visible()
        wrong = await looked_at(page, serious_issues)
        assert wrong == []
        await leased.ack()
        await page.clock.run_for(35_000)
        await expect(spans).to_have_count(3)
        await page.get_by_role("button", name="Read it now").click()
        await expect(spans).to_have_count(3)
        await studio.close()


async def test_where_none_are_kept_the_page_says_who_decided_that(tmp_path: Path, studio: Any) -> None:
    async with running_server(tmp_path, file=ServerFile.model_validate({"traces": {"keep": False}})) as server:
        page = await studio.open(server.server.studio_link(server.key))
        await page.goto(f"{server.url}/studio/rooms/den/traces")
        await expect(page.get_by_role("heading", name="No traces are kept")).to_be_visible()
        await studio.close()
