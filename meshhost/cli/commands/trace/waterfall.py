"""Draws the spans of a trace as a waterfall, in lines of a given width: names as a tree, and for each a bar over the time.

Spans come from participants, so nothing about them is taken for granted: one whose parent is not there stands at the top, one
that is its own ancestor too, and names are cut and freed of control characters.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meshhost.cli.output import one_line

__all__ = ["as_tree", "shown_seconds", "waterfall"]

Json = Mapping[str, Any]

_TIME = 8  # columns of a duration
_LEAST_NAME, _DEEPEST = 16, 12
_FULL, _PLAIN = "█", "="
_BRANCH, _LAST, _THROUGH = "├ ", "└ ", "│ "


def as_tree(spans: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    """Each span in the order in which it is drawn, with what is drawn before its name."""
    ids = {span["id"] for span in spans}
    below: dict[str, list[Json]] = {}
    for span in spans:
        parent = span["parent"] if span["parent"] in ids else ""
        below.setdefault(parent, []).append(span)
    seen: set[str] = set()
    # After those at the top, those that are their own ancestors.
    for top in [*below.get("", []), *spans]:
        stack = [(top, "", "")]
        while stack:
            span, before, mark = stack.pop()
            if span["id"] in seen:
                continue
            seen.add(span["id"])
            yield before + mark, span
            # Very deep ones are drawn at one depth.
            inner = before if len(before) >= 2 * _DEEPEST else before + {"": "", _BRANCH: _THROUGH, _LAST: "  "}[mark]
            children = below.get(span["id"], [])
            stack += [(child, inner, _BRANCH if number else _LAST) for number, child in enumerate(reversed(children))]


def waterfall(spans: Sequence[Json], *, width: int, is_unicode: bool) -> list[str]:
    """The lines, of at most `width` columns."""
    if not spans:
        return []
    begin = min(span["begin"] for span in spans)
    whole = max(max(span["begin"] + span["seconds"] for span in spans) - begin, 1e-9)
    rows = [(mark + _label(span), span) for mark, span in as_tree(spans)]
    names = min(max(_columns(text) for text, _ in rows), max(width * 2 // 5, _LEAST_NAME))
    room = width - names - _TIME - 4
    lines, told = [], ""
    for text, span in rows:
        left = min(int((span["begin"] - begin) / whole * room), room - 1)
        length = min(max(round(span["seconds"] / whole * room), 1), room - left)
        bar = (" " * left + (_FULL if is_unicode else _PLAIN) * length).ljust(room)
        line = (
            f"{_fitted(text, names)} {bar} {shown_seconds(span['seconds']):>{_TIME}}{' !' if span.get('error') else ''}"
        )
        lines.append(line.rstrip())
        error = span.get("error", "")
        if error and error != told:  # an attempt fails as what it was about
            lines.append(_fitted(f"  ! {one_line(error)}", width).rstrip())
        told = error
    return lines if is_unicode else [_plain(line) for line in lines]


def shown_seconds(seconds: float) -> str:
    """A duration for people, such as `12 ms`."""
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5_970 else f"{seconds / 3600:.1f} h"


def _label(span: Json) -> str:
    told = span.get("attributes", {}).get("tool.name") or span.get("attributes", {}).get("llm.model") or ""
    return one_line(f"{span['name']} {told}")


def _fitted(text: str, width: int) -> str:
    """The text, cut or filled up to so many columns."""
    if _columns(text) > width:
        kept = ""
        for character in text:
            if _columns(kept + character) > width - 1:
                break
            kept += character
        text = kept + "…"
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _plain(line: str) -> str:
    for drawn, plain in ((_BRANCH, "|-"), (_LAST, "`-"), (_THROUGH, "| "), ("…", ".")):
        line = line.replace(drawn, plain)
    return line
