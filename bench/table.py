"""Prints a table of figures, with the ratio of its first column to each of the others."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

# The text of the row, then a figure for each column.
Row = tuple[str, *tuple[float | None, ...]]


def show(
    title: str, columns: Sequence[str], rows: Sequence[Row], *, note: str = "", remarks: Sequence[str] = ()
) -> None:
    """Print a table; its last columns are the first column divided by each of the others. `remarks` are printed below it."""
    table = Table(title=title, caption=note or None, title_justify="left", caption_justify="left")
    table.add_column("")
    others = range(2, len(columns) + 1)
    ratios = ["ratio"] if len(columns) == 2 else [f"column\n1 / {number}" for number in others]
    for column in (*columns, *ratios):
        table.add_column(column, justify="right")
    for what, *figures in rows:
        table.add_row(what, *map(_figure, figures), *(_ratio(figures[0], other) for other in figures[1:]))
    console = Console(width=130)
    console.print(table)
    for remark in remarks:
        console.print(remark, soft_wrap=True, markup=False, highlight=False)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _ratio(first: float | None, other: float | None) -> str:
    return f"{first / other:.2f}" if first is not None and other else "-"
