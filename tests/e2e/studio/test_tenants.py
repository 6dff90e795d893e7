"""Tenants in a real browser: one is made with its key, whose holder sees only its own; names that are scripts stay text."""

import json
from typing import Any

import pytest
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SCRIPT = "<img src=x onerror=alert(1)>"


async def sign_in(page: Page, key: str) -> None:
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_be_visible()


async def test_the_operator_makes_a_tenant_and_its_key_opens_only_its_own(
    home_with_studio: Any, studio: Any, serious_issues: Any
) -> None:
    home = home_with_studio
    async with home.room_server():
        await home.send()
        link = json.loads(await home.cli("studio", "--operator", "--json"))["url"]
        page = await studio.open(link)
        await page.get_by_role("link", name="Tenants").click()
        await page.get_by_role("button", name="New tenant").first.click()
        await page.get_by_role("dialog").get_by_label("Name").fill("acme")
        await page.get_by_role("button", name="Make the tenant").click()
        shown = page.get_by_role("dialog").get_by_text("ma-").first
        await expect(shown).to_be_visible()
        key = (await shown.inner_text()).strip()
        assert await serious_issues(page) == []

        theirs = await studio.open(link.partition("#")[0])
        await sign_in(theirs, key)
        await expect(theirs.get_by_role("heading", name="acme")).to_be_visible()
        await expect(theirs.get_by_text("queue-test")).to_have_count(0)
        await expect(theirs.get_by_role("link", name="Tenants")).to_have_count(0)
        await theirs.goto(link.partition("#")[0].rstrip("/") + "/rooms/queue-test/queues")
        await expect(theirs.get_by_text("No queues").first).to_be_visible()
        await studio.close()


async def test_what_others_named_stays_text_on_every_page(home_with_studio: Any, studio: Any, link_in: Any) -> None:
    home = home_with_studio
    async with home.room_server() as server:
        await server.line("/studio/#code=")
        body = json.dumps({"instructions": SCRIPT, SCRIPT: "</script><script>alert(1)</script>"})
        await home.cli("queue", "send", "--room=den", f"--queue={SCRIPT}", "--json", body)
        note = home.directory / "note.html"
        note.write_text(f"<script>alert(1)</script>{SCRIPT}")
        await home.cli("storage", "cp", "--room=den", str(note), f"room:{'<b>note<b>.html'}")
        (home.directory / "note.md").write_text(f"# Hello\n\n{SCRIPT}\n\n[a](javascript:alert(1))")
        await home.cli("storage", "cp", "--room=den", str(home.directory / "note.md"), "room:note.md")
        page = await studio.open(link_in(server.lines))
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        await page.get_by_role("link", name="den").first.click()
        await page.get_by_role("link", name="Queues").click()
        await page.get_by_role("link", name=SCRIPT).first.click()
        await expect(page.get_by_role("heading", name=SCRIPT)).to_be_visible()
        await page.get_by_role("link", name="Files").click()
        for name in ("<b>note<b>.html", "note.md"):
            await page.get_by_role("link", name=name).click()
            await expect(page.get_by_role("heading", name=name).first).to_be_visible()
            await expect(page.get_by_text("Preview").first).to_be_visible()
            assert await page.locator("img[src=x]").count() == 0
            await page.go_back()
        assert dialogs == []
        await studio.close()
