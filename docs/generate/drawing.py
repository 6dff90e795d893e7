"""Draws two kinds of pictures as SVG: sequences (who tells whom what, top to bottom) and maps (boxes with lines of text).

SVG made here needs no browser, no script and no font from elsewhere: it looks the same in a repository's page, in the built
documentation and offline. Text is placed by an assumed width of its letters, so that the result is the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

__all__ = ["Arrow", "Box", "Message", "Note", "draw_map", "draw_sequence"]

_FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_LETTER = 7.1
_LINE = 17
_INK, _SOFT, _PAPER = "#1f2937", "#6b7280", "#ffffff"
_FILLS = {"plain": "#f3f4f6", "blue": "#dbeafe", "green": "#dcfce7", "yellow": "#fef9c3"}
_COLUMN = 190
_ROW = 44
_HEAD = 62

Fill = Literal["plain", "blue", "green", "yellow"]


@dataclass(frozen=True, slots=True)
class Message:
    """In a sequence: `source` tells `target` the text; `is_answer` draws a dashed line. Both may be the same column."""

    source: int
    target: int
    text: str
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """In a sequence: what happens at one column, or over the columns from `column` to `until`."""

    column: int
    text: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """In a map: a box with a title and lines of text."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str] = ()
    fill: Fill = "plain"


@dataclass(frozen=True, slots=True)
class Arrow:
    """In a map: an arrow along these points, with a text beside its first part."""

    points: Sequence[tuple[int, int]]
    text: str = ""
    is_two_way: bool = False
    text_at: tuple[int, int] | None = None


def draw_sequence(title: str, columns: Sequence[str], steps: Sequence[Message | Note]) -> str:
    """The SVG of a sequence; `title` is for readers who hear the picture."""
    width, height = _COLUMN * len(columns), _HEAD + _ROW * len(steps) + 20
    parts = []
    for index, column in enumerate(columns):
        x = _middle(index)
        parts.append(
            f'<line x1="{x}" y1="{_HEAD - 14}" x2="{x}" y2="{height - 10}" stroke="#d1d5db" stroke-width="2"/>'
        )
        parts += _box(Box(x - 84, 10, 168, 38, "", fill="blue"))
        parts.append(_text(x, 34, column, anchor="middle", bold=True))
    for row, step in enumerate(steps):
        y = _HEAD + _ROW * row + 26
        parts += _message(step, y) if isinstance(step, Message) else _note(step, y)
    return _svg(title, width, height, parts)


def draw_map(title: str, width: int, height: int, boxes: Sequence[Box], arrows: Sequence[Arrow] = ()) -> str:
    """The SVG of a map. Later boxes are drawn over earlier ones, so that a box may contain others."""
    parts = [part for box in boxes for part in _box(box)]
    return _svg(title, width, height, parts + [part for arrow in arrows for part in _arrow(arrow)])


def _message(step: Message, y: int) -> list[str]:
    dash = ' stroke-dasharray="5 4"' if step.is_answer else ""
    if step.source == step.target:
        x = _middle(step.source)
        path = f"M {x} {y - 8} h 26 v 14 h -24"
        line = f'<path d="{path}" fill="none" stroke="{_INK}"{dash} marker-end="url(#head)"/>'
        return [line, _text(x + 32, y + 2, step.text, on_paper=True)]
    x1, x2 = _middle(step.source), _middle(step.target)
    inset = 3 if x2 > x1 else -3
    line = f'<line x1="{x1}" y1="{y}" x2="{x2 - inset}" y2="{y}" stroke="{_INK}"{dash} marker-end="url(#head)"/>'
    return [line, _text((x1 + x2) // 2, y - 6, step.text, anchor="middle", on_paper=True)]


def _note(step: Note, y: int) -> list[str]:
    last = step.column if step.until is None else step.until
    needed = int(len(step.text) * _LETTER) + 20
    left, right = _middle(step.column), _middle(last)
    width = max(needed, right - left + 120)
    x = (left + right - width) // 2
    box = Box(max(x, 4), y - 17, width, 27, "", fill="yellow")
    return [*_box(box), _text(box.x + box.width // 2, y + 1, step.text, anchor="middle")]


def _box(box: Box) -> list[str]:
    place = f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'
    parts = [f'<rect {place} rx="6" fill="{_FILLS[box.fill]}" stroke="#9ca3af"/>']
    if box.title:
        parts.append(_text(box.x + 12, box.y + 22, box.title, bold=True))
    first = box.y + (42 if box.title else 22)
    return parts + [_text(box.x + 12, first + _LINE * row, line) for row, line in enumerate(box.lines)]


def _arrow(arrow: Arrow) -> list[str]:
    points = " ".join(f"{x},{y}" for x, y in arrow.points)
    start = ' marker-start="url(#tail)"' if arrow.is_two_way else ""
    line = f'<polyline points="{points}" fill="none" stroke="{_INK}"{start} marker-end="url(#head)"/>'
    if not arrow.text:
        return [line]
    (x1, y1), (x2, y2) = arrow.points[:2]
    x, y = arrow.text_at or ((x1 + x2) // 2, (y1 + y2) // 2 - 6)
    return [line, _text(x, y, arrow.text, anchor="middle", on_paper=True)]


def _text(x: int, y: int, text: str, *, anchor: str = "start", bold: bool = False, on_paper: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    # SVG drops spaces at the beginning of a text.
    left = x + 6 * (len(text) - len(text.lstrip()))
    place, shown = f'x="{left}" y="{y}" text-anchor="{anchor}"', escape(text.strip())
    # A copy with a thick outline in the paper's colour keeps lines from crossing the letters.
    halo = f'<text {place} fill="none" stroke="{_PAPER}" stroke-width="4">{shown}</text>' if on_paper else ""
    return f"{halo}<text {place}{weight}>{shown}</text>"


def _middle(column: int) -> int:
    return _COLUMN * column + _COLUMN // 2


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    head = '<path d="M 0 0 L 8 4 L 0 8 z" fill="#1f2937"/>'
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = f'font-family="{_FONT}" font-size="13" fill="{_INK}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {font}>',
            f"<title>{escape(title)}</title>",
            "<defs>",
            f'<marker id="head" markerWidth="8" markerHeight="8" refX="8" refY="4" orient="auto">{head}</marker>',
            f'<marker id="tail" markerWidth="8" markerHeight="8" refX="8" refY="4" orient="auto-start-reverse">{head}</marker>',
            "</defs>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>',
            *parts,
            "</svg>",
            "",
        ]
    )
