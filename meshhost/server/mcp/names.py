"""Names under which MCP clients see tools: `toolkit__tool`, in the characters and the length that models accept.

Providers of models refuse names with other characters than letters, digits, `_` and `-`, or with more than 64. A name that has
to be changed ends in eight digits of a hash over what it stands for, so that two tools never share a name and a tool has the
same name in every list, whatever else is in the room. The same holds for a name that could be split in two ways.
"""

import hashlib
import re

__all__ = ["AGENTS", "MAX_NAME", "changed_name", "offered_name"]

MAX_NAME = 64
AGENTS = "agents"
"""The part before `__` in the name of an agent that can be asked."""

_SEPARATOR = "__"
_DIGITS = 8
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def offered_name(*parts: str) -> str:
    """Return the name of a tool: of its toolkit and itself, or of itself only when one toolkit is offered alone."""
    plain = _SEPARATOR.join(parts)
    can_be_split = len(parts) == 1 or not (_SEPARATOR in parts[0] or parts[0].endswith("_"))
    if can_be_split and plain and len(plain) <= MAX_NAME and _OTHER.search(plain) is None:
        return plain
    return changed_name(*parts)


def changed_name(*parts: str) -> str:
    """Return a name that a model accepts and that no other parts have."""
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    safe = _OTHER.sub("_", _SEPARATOR.join(parts))
    return f"{safe[: MAX_NAME - _DIGITS - 1]}_{digest}"
