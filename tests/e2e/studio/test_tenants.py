"""Tenants in a real browser: the operator makes one with its key, whose holder sees only its own."""

import json
from typing import Any

import pytest
from playwright.async_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


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
