"""Prints what `measuring` and `floors` found: tables of at most 80 columns, and the aims with what was reached."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.queue_peers.contenders import CONTENDERS, OURS_POSTGRES, OURS_SQLITE
from bench.queue_peers.measuring import Figures, best

WIDTH = 80

# A title, and the columns with their figure; of the marked ones less is better.
_TABLES: list[tuple[str, list[tuple[str, str, bool]]]] = [
    (
        "Durable sends per second, and CPU µs per message with 100 callers",
        [
            ("1 caller", "alone_per_second", True),
            ("100 callers", "together_per_second", True),
            ("batches\nof 100", "batched_per_second", True),
            ("CPU of\nsender", "together_sender_us", False),
            ("CPU of\nserver", "together_server_us", False),
        ],
    ),
    (
        "Jobs per second of one worker process, and CPU µs per job at concurrency 100",
        [
            ("concur-\nrency 1", "drain_1_per_second", True),
            ("concur-\nrency 100", "drain_100_per_second", True),
            ("CPU of\nworker", "drain_100_worker_us", False),
            ("CPU of\nserver", "drain_100_server_us", False),
        ],
    ),
    (
        "From send to begin of the job at low load, ms; memory after the work, MB",
        [
            ("p50", "latency_p50", False),
            ("p99", "latency_p99", False),
            ("worker\nMB", "drain_100_worker_mb", False),
            ("server\nMB", "drain_100_server_mb", False),
        ],
    ),
]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _ratio(ours: float | None, other: float | None) -> str:
    return "-" if ours is None or not other else f"{ours / other:.2f}x"


def frameworks() -> list[str]:
    """The names of the task frameworks."""
    return [each.name for each in CONTENDERS if each.is_framework]


def tables(found: dict[str, Figures]) -> list[Table]:
    """The figures of all contenders, and ours as a ratio to the best task framework."""
    made = []
    for title, columns in _TABLES:
        table = Table(title=title, title_justify="left")
        table.add_column("")
        for text, _, _ in columns:
            table.add_column(text, justify="right")
        for name, figures in found.items():
            table.add_row(name, *(_number(figures.get(figure)) for _, figure, _ in columns))
        table.add_section()
        for ours in (OURS_SQLITE, OURS_POSTGRES):
            if ours not in found:
                continue
            ratios = [
                _ratio(found[ours].get(figure), best(found, frameworks(), figure, more_is_better=more))
                for _, figure, more in columns
            ]
            table.add_row(f"{ours.split()[-1]} to the best", *ratios)
        made.append(table)
    return made


def _aim(text: str, value: float | None, line: float | None, *, at_least: bool, unit: str) -> tuple[str, ...]:
    if value is None or line is None:
        return text, "-", "-", "not measured"
    is_met = value >= line if at_least else value <= line
    sign = "≥" if at_least else "≤"
    return text, f"{sign} {_number(line)} {unit}", _number(value), "yes" if is_met else "NO"


def aims(found: dict[str, Figures], floors: Figures) -> Table:
    """Each aim with what was reached in this run."""
    table = Table(title="Aims", title_justify="left")
    for text in ("", "aim", "here", "met"):
        table.add_column(text, justify="left" if not text else "right")
    for ours, factor in ((OURS_SQLITE, 3.0), (OURS_POSTGRES, 2.0)):
        figures = found.get(ours, {})
        short = ours.split()[-1]
        for what, figure in (("drain", "drain_100_per_second"), ("100 callers", "together_per_second")):
            line = best(found, frameworks(), figure)
            table.add_row(
                *_aim(
                    f"{short}: {what}, to the best",
                    figures[figure] / line if line and figure in figures else None,
                    factor,
                    at_least=True,
                    unit="x",
                )
            )
        line = best(found, frameworks(), "alone_per_second")
        alone = figures["alone_per_second"] / line if line and "alone_per_second" in figures else None
        table.add_row(*_aim(f"{short}: 1 caller, to the best", alone, 1.0, at_least=True, unit="x"))
        worker, p50 = figures.get("drain_100_worker_us"), figures.get("latency_p50")
        table.add_row(*_aim(f"{short}: CPU of the worker", worker, 150.0, at_least=False, unit="µs"))
        table.add_row(*_aim(f"{short}: p50 at low load", p50, 3.0, at_least=False, unit="ms"))
    if floors:
        echo = floors["echo"]
        table.add_row(*_aim("request without disk", floors["memory"], 3 * echo, at_least=False, unit="ms"))
        lone = echo + floors["fdatasync"] + 0.3
        table.add_row(*_aim("lone durable send", floors["send"], lone, at_least=False, unit="ms"))
    return table


def floors_line(floors: Figures) -> str:
    """What bounds a request, in one paragraph."""
    theirs = floors.get("sdk_calls")
    beside = "" if theirs is None else f", the SDK's client {theirs:,.0f} ({floors['calls'] / theirs:.1f}x)"
    return (
        f"Medians in ms: WebSocket echo {floors['echo']:.2f}, fdatasync {floors['fdatasync']:.2f}, "
        f"list of toolkits (memory) {floors['memory']:.2f}, list of queues {floors['list']:.2f}, "
        f"lone durable send {floors['send']:.2f}. Tool calls per second, 64 at a time: {floors['calls']:,.0f}{beside}."
    )


def show(found: dict[str, Figures], floors: Figures, remarks: Sequence[str]) -> None:
    """Print everything."""
    console = Console(width=WIDTH)
    for table in tables(found):
        console.print(table)
    if floors:
        console.print(floors_line(floors), markup=False, highlight=False)
    console.print(aims(found, floors))
    for remark in remarks:
        console.print(remark, markup=False, highlight=False)
