"""Print a table of figures with the ratio between two of its columns."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

Row = tuple[str, float | None, float | None]


def show(title: str, columns: tuple[str, str], rows: Sequence[Row], *, note: str = "") -> None:
    """Each row is (what, ours, theirs); the last column is ours / theirs."""
    table = Table(title=title, caption=note or None, title_justify="left")
    table.add_column("")
    for column in (*columns, "ratio"):
        table.add_column(column, justify="right")
    for what, ours, theirs in rows:
        ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
        table.add_row(what, _figure(ours), _figure(theirs), ratio)
    Console(width=110).print(table)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
