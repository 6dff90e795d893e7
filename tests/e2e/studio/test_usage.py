"""What models cost, in a real browser: over time, by agent, room and model; by tenant for the operator; and without prices."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from meshhost.identity.tenant import TenantId
from meshhost.stores.usage import UsageCounts, UsageKey, UsageRow, hour_of
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
SCRIPT = "<img src=x onerror=alert(1)>"
CHEAP, DEAR, EURO = "USD 1000000 100000 1000000 2000000", "USD 2000000 0 0 4000000", "EUR 1000000 0 0 0"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, operator_key=OPERATOR_KEY) as running:
        yield running


async def used(server: RunningServer, model: str, price: str, *, agent: str = "ann", tenant: str = "") -> None:
    """1,000,000 tokens of input, of which 400,000 were read from a cache, and 500,000 of output."""
    key = UsageKey(TenantId(tenant or server.key.project_id), "den", agent, model, hour_of(time.time()), price)
    counts = UsageCounts(2, 1_000_000, 400_000, 500_000, 12.5)
    await server.server.engines.meter.restore([UsageRow(key, counts)])


async def test_a_tenant_sees_its_cost_by_agent_and_model_and_what_has_no_price(
    server: RunningServer, studio: Any, in_every_light: Any
) -> None:
    await used(server, "gpt", CHEAP)
    await used(server, "gpt", DEAR, agent=SCRIPT)
    await used(server, "qwen", "", agent="bob")
    page = await studio.open(server.server.studio_link(server.key))
    await page.get_by_role("link", name="Use of models").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Use of models")
    # 600,000 plain at 1, 400,000 cached at 0.1, 500,000 out at 2: 1.64; at the other price 1.2 + 0 + 2 = 3.2.
    await expect(page.locator(".stats")).to_contain_text("4.84")
    await expect(page.get_by_text("2 requests went to models for which no price is set")).to_be_visible()
    await page.get_by_label("Sums by").select_option("model")
    table = page.get_by_role("table", name="Use of models")
    await expect(table.get_by_role("row").filter(has_text="gpt")).to_contain_text("4.84")
    await expect(table.get_by_role("row").filter(has_text="qwen")).to_contain_text("no price is set")
    await page.get_by_label("Sums by").select_option("agent")
    await expect(table.get_by_role("row").filter(has_text=SCRIPT)).to_contain_text("3.20")
    chart = page.get_by_role("region", name="Cost", exact=True)
    await expect(chart.locator(".legend")).to_contain_text("ann")
    await expect(chart.locator(".legend")).to_contain_text("1.64")
    await expect(chart.get_by_role("img", name="USD per hour")).to_be_visible()
    assert await in_every_light(page) == []

    await used(server, "gpt", EURO, agent="eve")
    await page.get_by_label("Time").select_option("30 days")
    await expect(page.get_by_role("region", name="Cost, EUR")).to_be_visible()
    await expect(page.get_by_role("img", name="USD per day")).to_be_visible()
    await studio.close()


async def test_without_any_price_the_page_says_so_and_who_sets_them(server: RunningServer, studio: Any) -> None:
    await used(server, "qwen", "")
    page = await studio.open(server.server.studio_link(server.key))
    await page.goto(f"{server.url}/studio/usage")
    await expect(page.get_by_text("No price is set, so there is no cost.")).to_be_visible()
    await expect(page.get_by_text("[[prices]]")).to_be_visible()
    await expect(page.get_by_role("region", name="Cost")).to_have_count(0)
    await studio.close()


async def test_the_operator_sees_the_cost_of_all_tenants(
    server: RunningServer, studio: Any, in_every_light: Any
) -> None:
    await used(server, "gpt", CHEAP)
    await used(server, "gpt", DEAR, tenant="rival")
    page = await studio.open(server.server.studio_link(None))
    await page.get_by_role("link", name="Use of models").click()
    table = page.get_by_role("table", name="Use of models")
    await expect(table.get_by_role("row").filter(has_text="rival")).to_contain_text("3.20")
    await expect(table.get_by_role("row")).to_have_count(3)
    await page.get_by_label("Sums by").select_option("model")
    await expect(table.get_by_role("row").filter(has_text="gpt")).to_contain_text("4.84")
    assert await in_every_light(page) == []
    await studio.close()
