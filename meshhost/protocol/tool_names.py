"""Names of tools in the characters and the length that models accept.

Providers of models refuse names with other characters than letters, digits, `_` and `-`, or with more than 64. A name that has
to be changed ends in eight digits of a hash over what it stands for, so that two tools never share a name and a tool has the
same name in every list, whatever else is in it. The same holds for `toolkit__tool` where that could be split in two ways. Used
where a room is an MCP server, and where an MCP server is a toolkit. Pure.
"""

import hashlib
import re

__all__ = ["AGENTS", "MAX_NAME", "acceptable_name", "changed_name", "offered_name"]

MAX_NAME = 64
AGENTS = "agents"
"""The part before `__` in the name of an agent that can be asked."""

_SEPARATOR = "__"
_DIGITS = 8
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def offered_name(toolkit: str, tool: str) -> str:
    """Return the name of a tool of a toolkit, where tools of several are offered."""
    plain = f"{toolkit}{_SEPARATOR}{tool}"
    can_be_split = not (_SEPARATOR in toolkit or toolkit.endswith("_"))
    return plain if can_be_split and _is_acceptable(plain) else changed_name(toolkit, tool)


def acceptable_name(tool: str) -> str:
    """Return the name of a tool, where those of one toolkit are offered."""
    return tool if _is_acceptable(tool) else changed_name(tool)


def changed_name(*parts: str) -> str:
    """Return a name that a model accepts and that no other parts have."""
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    safe = _OTHER.sub("_", _SEPARATOR.join(parts))
    return f"{safe[: MAX_NAME - _DIGITS - 1]}_{digest}"


def _is_acceptable(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and _OTHER.search(name) is None
