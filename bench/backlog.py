"""Measures queues with many messages: what a backlog costs per message, whose backlog it is, and what churn does to PostgreSQL.

1. *Cost per message*: sends by 100 callers and a drain by one worker process, with 1,000 and with a million messages queued.
2. *Another tenant's backlog*: latency at low load, alone, and while another tenant has a million messages and a worker of its
   own drains them on the same server.
3. *Held snapshot and churn* on PostgreSQL: rounds of sends and drains for `--seconds`; in the middle third another session
   holds a snapshot, so that no dead row can be removed. Shown over time: rates, dead rows and size of the tables.

Part of no default run: it takes long (a million messages take a minute to store). Sizes are parameters:
`python -m bench backlog --sizes 1000 10000 --other-tenant 10000 --seconds 30`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.processes import room_access
from bench.queue_peers.contenders import Available, Contender, available
from bench.queue_peers.measuring import CALLERS, CONCURRENCY, Figures, Runner, against, say
from bench.queue_peers.report import WIDTH

SIZES = [1_000, 1_000_000]
OTHERS = 1_000_000
SECONDS = 180.0
_MEASURED = 3000
_LATENCIES = 300
_CHURNED = 2000
_FILL_BATCH = 1000

_DEAD_ROWS = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables"
_SIZE = "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_stat_user_tables"


@dataclass
class Found:
    """Everything that was measured, by contender."""

    sizes: dict[str, dict[int, Figures]] = field(default_factory=dict)
    neighbours: dict[str, dict[str, Figures]] = field(default_factory=dict)
    churn: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


async def _fill(runner: Runner, count: int) -> None:
    if count >= _FILL_BATCH:
        await runner.send(count=count, batch=_FILL_BATCH, callers=2)
    elif count:
        await runner.send(count=count)


async def _with_queued(contender: Contender, python: str, count: int) -> Figures:
    """The cost of sends and of a drain on top of `count` queued messages."""
    async with against(contender, python) as runner:
        await _fill(runner, count)
        sent = await runner.send(count=_MEASURED, callers=CALLERS)
        worked = await runner.work(count=min(_MEASURED, count + _MEASURED), concurrency=CONCURRENCY)
    return {f"send_{name}": value for name, value in sent.items()} | {
        f"drain_{name}": value for name, value in worked.items()
    }


@asynccontextmanager
async def _other_tenant(runner: Runner) -> AsyncIterator[Runner]:
    """The same server, for a tenant that is made here."""
    broker = runner.broker
    url, operator = broker.address["api_url"], {"Authorization": f"Bearer {broker.address['operator_key']}"}
    async with aiohttp.ClientSession(url, headers=operator, raise_for_status=True) as session:
        await session.post("/tenants", json={"name": "other"})
        async with session.post("/tenants/other/keys", json={"name": "bench"}) as answer:
            key = (await answer.json())["value"]
    address, token = room_access(url, key, "bench")
    yield runner.at(broker.address | {"url": address, "token": token})


async def _beside_other(contender: Contender, python: str, count: int) -> dict[str, Figures]:
    """Latency of a tenant: alone, beside another one's backlog, and while that is drained."""
    found: dict[str, Figures] = {}
    async with against(contender, python) as runner:
        found["alone"] = await runner.latency(_LATENCIES)
        async with _other_tenant(runner) as other:
            await _fill(other, count)
            found["backlog"] = await runner.latency(_LATENCIES)
            # More than it can reach meanwhile: it is ended when the block is left.
            async with other.worker(count=count * 2, concurrency=CONCURRENCY):
                found["drained"] = await runner.latency(_LATENCIES)
    return found


async def _churn(contender: Contender, python: str, seconds: float) -> list[dict[str, Any]]:
    """Rates, dead rows and size over time; the middle third under a held snapshot."""
    import psycopg

    steps: list[dict[str, Any]] = []
    async with against(contender, python) as runner:
        url = runner.broker.address.get("database_url") or runner.broker.address["url"]
        async with (
            await psycopg.AsyncConnection.connect(url, autocommit=True) as looking,
            await psycopg.AsyncConnection.connect(url) as holding,
        ):
            begun = time.monotonic()
            while (passed := time.monotonic() - begun) < seconds:
                third = int(passed / seconds * 3)
                if third == 1 and not holding.info.transaction_status:
                    await holding.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    await holding.execute("SELECT count(*) FROM pg_class")
                elif third == 2:
                    await holding.rollback()
                sent = await runner.send(count=_CHURNED, callers=CALLERS)
                worked = await runner.work(count=_CHURNED, concurrency=CONCURRENCY)
                (dead,) = await (await looking.execute(_DEAD_ROWS)).fetchone() or (0,)
                (size,) = await (await looking.execute(_SIZE)).fetchone() or (0,)
                phase = ("before", "held", "after")[third]
                step = {"seconds": passed, "phase": phase, "dead_rows": int(dead), "mb": int(size) / 1e6}
                steps.append(step | {"sends": sent["per_second"], "drain": worked["per_second"]})
    return steps


async def _measure(those: Available, found: Found, *, sizes: Sequence[int], others: int, seconds: float) -> None:
    for contender in those.contenders:
        python, name = those.python_of(contender), contender.name
        try:
            if contender.has_batches and contender.most_per_second > 1000:
                for size in sizes:
                    say(f"{name}: {size:,} queued")
                    found.sizes.setdefault(name, {})[size] = await _with_queued(contender, python, size)
            if contender.is_ours and others:
                say(f"{name}: beside another tenant's {others:,}")
                found.neighbours[name] = await _beside_other(contender, python, others)
            if contender.engine == "postgres" and seconds:
                say(f"{name}: churn for {seconds:.0f} s")
                found.churn[name] = await _churn(contender, python, seconds)
        except Exception as error:  # noqa: BLE001 - what was measured in hours is shown in any case
            found.failed.append(f"{name}: {type(error).__name__}: {error}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _cost(figures: Figures) -> float:
    """CPU of server and worker, and of server and sender: µs for the whole way of a message."""
    return sum(figures[name] for name in ("send_sender_us", "send_server_us", "drain_worker_us", "drain_server_us"))


def _show(found: Found) -> None:
    console = Console(width=WIDTH)
    table = _table(
        "Cost per message with so many queued", "", "queued", "sends/s", "drain/s", "CPU µs\nall sides", "to the\nfirst"
    )
    for name, by_size in found.sizes.items():
        first = _cost(next(iter(by_size.values())))
        for size, figures in by_size.items():
            rates = (f"{figures['send_per_second']:,.0f}", f"{figures['drain_per_second']:,.0f}")
            table.add_row(name, f"{size:,}", *rates, f"{_cost(figures):,.0f}", f"{_cost(figures) / first:.2f}x")
    console.print(table)
    table = _table("Beside another tenant, from send to begin, ms", "", "", "p50", "p99", "p99 to alone")
    for name, by_case in found.neighbours.items():
        for case, figures in by_case.items():
            ratio = f"{figures['p99'] / by_case['alone']['p99']:.2f}x"
            table.add_row(name, case, f"{figures['p50']:.2f}", f"{figures['p99']:.2f}", ratio)
    console.print(table)
    table = _table("Churn on PostgreSQL", "", "at s", "snapshot", "sends/s", "drain/s", "dead rows", "MB")
    for name, steps in found.churn.items():
        for step in _spread(steps, 9):
            rates = (f"{step['sends']:,.0f}", f"{step['drain']:,.0f}")
            at = f"{step['seconds']:.0f}"
            table.add_row(name, at, step["phase"], *rates, f"{step['dead_rows']:,}", f"{step['mb']:.1f}")
    console.print(table)
    for line in found.failed:
        console.print(line, markup=False, highlight=False)


def _spread(steps: Sequence[dict[str, Any]], most: int) -> Sequence[dict[str, Any]]:
    """At most so many of these, evenly, with the last one."""
    stride = max(-(-len(steps) // most), 1)
    return list(reversed(list(reversed(steps))[::stride]))


async def main(
    *,
    sizes: Sequence[int] = SIZES,
    others: int = OTHERS,
    seconds: float = SECONDS,
    only: Sequence[str] = (),
    as_json: bool = False,
) -> None:
    """Measure and print tables, or JSON. `only` chooses contenders by parts of their names; without it: ours and PGQueuer."""
    those = await asyncio.to_thread(available, only or ("meshhost", "PGQueuer"))
    found = Found()
    await _measure(those, found, sizes=sizes, others=others, seconds=seconds)
    if as_json:
        parts = {"sizes": found.sizes, "neighbours": found.neighbours, "churn": found.churn, "failed": found.failed}
        print(json.dumps(parts | {"why_not": those.why_not}))
    else:
        _show(found)


if __name__ == "__main__":
    asyncio.run(main())
