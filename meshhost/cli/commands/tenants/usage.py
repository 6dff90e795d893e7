"""`meshhost usage`: shows what was used of models and what it cost, summed by agent, room, model, time or tenant.

The rows come from the REST API of a running server: those of one project with its API key, those of all tenants with the
operator's key. They are summed here, with exact decimal numbers.
"""

from __future__ import annotations

import decimal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption

__all__ = ["usage"]

_PAGE = 1000
_COUNTS = (
    *("requests", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    *("seconds", "unmeasured"),
)
_SHOWN = Decimal("0.000001")


# The member of a row that it is summed by, where that is its whole value.
_MEMBERS = {"agent": "identity", "room": "room", "model": "model", "tenant": "tenant_name"}
_TIMES = ("hour", "day")


def _check_by(value: str) -> str:
    if value not in (*_MEMBERS, *_TIMES):
        raise typer.BadParameter(f"expected one of {', '.join((*_MEMBERS, *_TIMES))}, got {value!r}")
    return value


def usage(
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="WHAT",
            callback=_check_by,
            help="Sums by agent, room, model, hour, day or tenant (operator).",
        ),
    ] = "model",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Begin: how long ago, such as 24h or 30d, or a time.")
    ] = "24h",
    room: Annotated[str | None, typer.Option("--room", metavar="NAME", help="Only this room.")] = None,
    every_tenant: Annotated[
        bool, typer.Option("--all-tenants", help="Of all tenants, as the operator; not by agent or room.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what was used of models, and what it cost.

    The cost is that of the prices in the server's configuration at the time of use. Models without a price have none.
    """
    from meshhost.cli.output import print_json, print_table
    from meshhost.cli.times import past_moment_of

    every_tenant = every_tenant or by == "tenant"
    if every_tenant and (by in ("agent", "room") or room is not None):
        raise typer.BadParameter("the operator sees tenants, models and times, not rooms and agents of tenants")
    begin = past_moment_of(since, option="--since")
    # Times are shown and cut in UTC, as they are counted.
    query: dict[str, Any] = {"since": datetime.fromtimestamp(min(begin, time.time()), UTC).isoformat()}
    rows = _totals(query) if every_tenant else _rows(query if room is None else {**query, "room": room})
    sums: dict[str, _Sum] = {}
    for row in rows:
        sums.setdefault(_name(row, by), _Sum()).add(row)
    ordered = sorted(sums.items(), key=_order(by))
    if as_json:
        print_json([{by: name, **each.as_json()} for name, each in ordered])
        return
    columns = (by.upper(), "REQUESTS", "INPUT", "CACHED", "OUTPUT", "SECONDS", "COST")
    print_table(columns, [(name, *each.cells()) for name, each in ordered], empty="no model was used in this time")


def _rows(query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from meshhost.cli.connect import get_json, server_access
    from meshhost.cli.log_output import log_for_command

    log_for_command()
    access = server_access()
    path = f"/accounts/projects/{access.project_id}/usage"
    return _pages(lambda offset: get_json(access, path, **query, limit=_PAGE, offset=offset))


def _totals(query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from meshhost.cli.managing import manage

    return _pages(lambda offset: manage("GET", "/usage", **query, limit=_PAGE, offset=offset))


def _pages(read: Callable[[int], Any]) -> Iterator[dict[str, Any]]:
    offset = 0
    while page := read(offset)["usage"]:
        yield from page
        if len(page) < _PAGE:
            return
        offset += len(page)


@dataclass(slots=True)
class _Sum:
    """The sums of some rows. Costs are by currency; `unpriced` counts the requests of models that had no price."""

    counts: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    costs: dict[str, Decimal] = field(default_factory=dict)
    unpriced: int = 0

    def add(self, row: dict[str, Any]) -> None:
        for name in _COUNTS:
            self.counts[name] += row.get(name, 0)  # an older server does not count all
        cost = row.get("cost")
        if cost is None:
            self.unpriced += row["requests"]
            return
        with decimal.localcontext(prec=60):
            self.costs[cost["currency"]] = self.costs.get(cost["currency"], Decimal(0)) + Decimal(cost["amount"])

    def as_json(self) -> dict[str, Any]:
        costs = [{"currency": name, "amount": f"{amount:f}"} for name, amount in sorted(self.costs.items())]
        counts = {**self.counts, "seconds": round(self.counts["seconds"], 3)}
        return {**counts, "cost": costs, "requests_without_price": self.unpriced}

    def cells(self) -> tuple[object, ...]:
        counts = self.counts
        names = ("requests", "input_tokens", "cached_tokens", "output_tokens")
        return (*(counts[name] for name in names), round(counts["seconds"], 1), self._cost())

    def _cost(self) -> str:
        parts = [f"{_rounded(amount)} {currency}" for currency, amount in sorted(self.costs.items())]
        if not parts:
            return "no price is set"
        return " + ".join(parts) + (f" (no price for {self.unpriced} requests)" if self.unpriced else "")


def _rounded(amount: Decimal) -> str:
    """The amount as people read it; --json has all of it."""
    if 0 < amount < _SHOWN:
        return f"less than {_SHOWN}"
    with decimal.localcontext(prec=60):
        text = f"{amount.quantize(_SHOWN):f}"
    return text.rstrip("0").rstrip(".")


def _name(row: dict[str, Any], by: str) -> str:
    if by in _MEMBERS:
        return str(row[_MEMBERS[by]])
    begin = str(row.get("hour") or row.get("begin"))
    return begin if by == "hour" else begin[:10]


def _order(by: str) -> Callable[[tuple[str, _Sum]], Any]:
    """Times in their order; others by their tokens, most first."""
    if by in _TIMES:
        return lambda each: each[0]
    return lambda each: (-each[1].counts["input_tokens"] - each[1].counts["output_tokens"], each[0])
