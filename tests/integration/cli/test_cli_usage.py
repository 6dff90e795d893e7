"""`meshhost usage` against a real room server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from meshhost.app.config_file import ServerFile
from meshhost.cli.main import run
from meshhost.gateway.meter import Meter
from meshhost.identity.tenant import TenantId
from meshhost.stores.usage import UsageCounts, UsageKey, UsageRow, hour_of
from meshhost.testing.server import RunningServer, running_server

Command = Callable[..., Awaitable[tuple[int, str, str]]]
OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
CHEAP, DEAR, EURO = "USD 1000000 100000 1000000 2000000", "USD 2000000 0 0 4000000", "EUR 1 1 1 1"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Command:
    async def run_command(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, ("usage", *arguments))
        return code, *capsys.readouterr()

    return run_command


@pytest.fixture
async def server(environment: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server", operator_key=OPERATOR_KEY, file=ServerFile()) as running:
        environment.setenv("MESHHOST_API_URL", running.url)
        environment.setenv("MESHHOST_API_KEY", running.api_key)
        yield running


def meter_of(server: RunningServer) -> Meter:
    return server.server.engines.meter


async def used(server: RunningServer, model: str, price: str, *, tenant: str | None = None, **more: str) -> None:
    import time

    key = UsageKey(
        TenantId(tenant or server.key.project_id),
        more.get("room", "den"),
        more.get("identity", "ann"),
        model,
        hour_of(time.time()),
        price,
    )
    await meter_of(server).restore([UsageRow(key, UsageCounts(2, 1_000, 400, 50, 1.25, 0, 100))])


async def test_nothing_used_is_said(server: RunningServer, command: Command) -> None:
    assert await command() == (0, "", "no model was used in this time\n")
    assert await command("--json") == (0, "[]\n", "")


async def test_tokens_and_cost_are_summed_exactly_and_no_price_is_no_zero(
    server: RunningServer, command: Command
) -> None:
    await used(server, "gpt", CHEAP)
    await used(server, "gpt", DEAR)
    await used(server, "gpt", EURO, identity="bob\x1b[31m")
    await used(server, "qwen", "", room="mail")

    code, out, _ = await command()
    assert code == 0
    assert [line.split("\t") for line in out.splitlines()] == [
        ["gpt", "6", "3000", "1200", "150", "3.8", "less than 0.000001 EUR + 0.00194 USD"],
        ["qwen", "2", "1000", "400", "50", "1.2", "no price is set"],
    ]
    [gpt, qwen] = json.loads((await command("--json"))[1])
    # 500 plain, 400 cached, 100 written, 50 out: 0.000740 at the first price, 0.0012 at the other.
    assert gpt["cost"] == [
        {"currency": "EUR", "amount": "0.00000000105"},
        {"currency": "USD", "amount": "0.00194"},
    ]
    assert (qwen["model"], qwen["cost"], qwen["requests_without_price"]) == ("qwen", [], 2)
    [ann, bob] = (await command("--by=agent"))[1].splitlines()
    assert ann.endswith("0.00194 USD (no price for 2 requests)")
    assert bob.startswith("bob[31m\t")
    assert [row["room"] for row in json.loads((await command("--by=room", "--json"))[1])] == ["den", "mail"]
    assert len((await command("--by=hour"))[1].splitlines()) == len((await command("--by=day"))[1].splitlines()) == 1
    assert (await command("--room=mail"))[1].startswith("qwen\t2\t")
    assert (await command("--since=2100-01-01T00:00"))[0] == 0


async def test_the_operator_sees_the_sums_of_all_tenants(
    server: RunningServer, command: Command, environment: pytest.MonkeyPatch
) -> None:
    await used(server, "gpt", CHEAP)
    await used(server, "gpt", CHEAP, tenant="rival")
    code, _, said = await command("--by=tenant")
    assert (code, "operator's key" in said) == (1, True)
    environment.setenv("MESHHOST_OPERATOR_KEY", OPERATOR_KEY)

    assert {row["tenant"] for row in json.loads((await command("--by=tenant", "--json"))[1])} > {"rival"}
    [gpt] = json.loads((await command("--all-tenants", "--json"))[1])
    assert (gpt["requests"], gpt["cost"]) == (4, [{"currency": "USD", "amount": "0.00148"}])


async def test_what_cannot_be_asked_is_refused(command: Command) -> None:
    for arguments in (("--by=colour",), ("--all-tenants", "--by=room"), ("--by=tenant", "--room=den"), ("--since=x",)):
        code, out, said = await command(*arguments)
        assert (code, out) == (2, ""), arguments
        assert "expected" in said or "operator sees" in said
