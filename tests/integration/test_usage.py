"""What an agent spends on models is measured by the gateway, survives a restart, and is read by its tenant."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from meshhost.app.config_file import ServerFile
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import RunningServer, running_server

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
COUNTED = {
    *("model", "requests", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "seconds"),
    *("unmeasured", "price", "cost"),
}
KEY = new_api_key("11111111-2222-3333-4444-555555555555")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


def providers(upstream: ScriptedUpstream) -> ProviderTable:
    return ProviderTable({"*": OpenAICompatibleProvider(name="scripted", base_url=upstream.base_url, api_key="key")})


async def ask(server: RunningServer, room: str, name: str) -> None:
    token = server.token(room, name=name)
    base_url = f"{server.url}/rooms/{room}/v1"
    async with AsyncOpenAI(base_url=base_url, api_key=token, max_retries=0) as client:
        await client.responses.create(model="m", input="hi")


async def usage(server: RunningServer, key: str | None = None, project: str = KEY.project_id, **query: str) -> Any:
    headers = {"Authorization": f"Bearer {key or encode_api_key(KEY)}"}
    url = f"{server.url}/accounts/projects/{project}/usage"
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url, params=query) as response:
        return response.status, await response.json()


async def test_usage_is_read_by_the_tenant_and_survives_a_restart(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    for _ in range(3):
        upstream.say("hello")
    async with running_server(tmp_path, key=KEY, providers=providers(upstream)) as server:
        await ask(server, "lobby", "bob")
        await ask(server, "lobby", "bob")
        await ask(server, "mail", "eve")
        status, before = await usage(server)
    assert status == 200
    [bob, eve] = before["usage"]
    assert (bob["room"], bob["identity"], bob["model"], bob["requests"]) == ("lobby", "bob", "m", 2)
    assert (bob["input_tokens"], bob["cached_tokens"], bob["output_tokens"], bob["unmeasured"]) == (22, 0, 14, 0)
    assert (eve["room"], eve["identity"], eve["requests"]) == ("mail", "eve", 1)
    assert bob["hour"].endswith(":00:00Z")
    assert bob["seconds"] > 0

    async with running_server(tmp_path, key=KEY, providers=providers(upstream)) as server:
        assert await usage(server) == (200, before)
        assert await usage(server, room="mail") == (200, {"usage": [eve]})
        assert await usage(server, limit="1", offset="1") == (200, {"usage": [eve]})
        assert await usage(server, since=bob["hour"]) == (200, before)
        assert await usage(server, until=bob["hour"]) == (200, {"usage": []})
        assert await usage(server, since="2100-01-01T00:00:00") == (200, {"usage": []})


PRICES = {"prices": [{"models": "m*", "input": 1.25, "cached_input": 0.1, "output": 10}]}


async def test_the_cost_is_that_of_the_time_of_use_and_no_price_is_no_cost(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    for _ in range(3):
        upstream.say("hello")
    price = {"currency": "USD", "input": "1.25", "cached_input": "0.1", "cache_write": "1.25", "output": "10"}
    async with running_server(tmp_path, key=KEY, providers=providers(upstream)) as server:
        await ask(server, "lobby", "bob")
        [free] = (await usage(server))[1]["usage"]
        assert (free["price"], free["cost"]) == (None, None)
    file = ServerFile.model_validate(PRICES)
    async with running_server(tmp_path, key=KEY, providers=providers(upstream), file=file) as server:
        await ask(server, "lobby", "bob")
        [still_free, priced] = (await usage(server))[1]["usage"]
        assert still_free == free
        # 11 tokens of input and 7 of output.
        assert (priced["price"], priced["cost"]) == (price, {"currency": "USD", "amount": "0.00008375"})
        assert priced["cache_write_tokens"] == 0
    dear = ServerFile.model_validate({"prices": [{"models": "m", "currency": "EUR", "input": 2, "output": 20}]})
    async with running_server(tmp_path, key=KEY, providers=providers(upstream), file=dear) as server:
        await ask(server, "lobby", "bob")
        found = (await usage(server))[1]["usage"]
        assert [row["cost"] for row in found] == [
            None,
            {"currency": "EUR", "amount": "0.000162"},
            {"currency": "USD", "amount": "0.00008375"},
        ]


async def test_the_operator_sees_the_sums_of_all_tenants(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    for _ in range(2):
        upstream.say("hello")
    async with running_server(
        tmp_path,
        key=KEY,
        providers=providers(upstream),
        operator_key=OPERATOR_KEY,
        file=ServerFile.model_validate(PRICES),
    ) as server:
        await ask(server, "lobby", "bob")
        await ask(server, "mail", "eve")

        async def totals(key: str, **query: str) -> Any:
            headers = {"Authorization": f"Bearer {key}"}
            async with (
                aiohttp.ClientSession(headers=headers) as http,
                http.get(f"{server.url}/usage", params=query) as response,
            ):
                return response.status, await response.json()

        status, answer = await totals(OPERATOR_KEY)
        [row] = answer["usage"]
        assert status == 200
        assert (row["tenant"], row["model"], row["requests"]) == (KEY.project_id, "m", 2)
        assert row["cost"] == {"currency": "USD", "amount": "0.0001675"}
        assert row["begin"].endswith(":00:00Z")
        assert set(row) == {"begin", "tenant", "tenant_name", *COUNTED}
        [day] = (await totals(OPERATOR_KEY, step="day"))[1]["usage"]
        assert day["begin"].endswith("T00:00:00Z")
        assert (await totals(OPERATOR_KEY, since="2100-01-01"))[1] == {"usage": []}
        assert (await totals(OPERATOR_KEY, step="week"))[0] == 400
        assert (await totals(encode_api_key(KEY)))[0] == 403
        assert (await totals("nonsense"))[0] == 401


async def test_usage_wants_a_key_of_the_project_and_a_query_that_can_be_read(tmp_path: Path) -> None:
    async with running_server(tmp_path, key=KEY) as server:
        assert (await usage(server, key="ma-nonsense"))[0] == 401
        assert (await usage(server, project="another"))[0] == 404
        for name in ("since", "until", "limit", "offset"):
            status, answer = await usage(server, **{name: "soon"})
            assert status == 400
            assert answer["error"].startswith(f"{name}: ")
        assert (await usage(server, room="Not A Room"))[0] == 400
