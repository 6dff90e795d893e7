"""Names of MeshAgent that a module of ours does not define: those that are found in a higher layer, and those that stay out.

MeshAgent has some names at import paths that in meshhost belong to a lower layer than the code behind them; they are looked up
when they are asked for. Others meshhost does not have on purpose. A program that imports one ends at that line, with the name
and what to use instead, and not later at its first call.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["OUT", "names_elsewhere"]

OUT: dict[str, Mapping[str, str]] = {}
"""By module, as far as modules are loaded: what to use instead of each name that is not there."""


def names_elsewhere(module: str, found: Mapping[str, str], out: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module.

    `found` has the module of each name that is elsewhere, `out` what to use instead of each name that is not there; `*` stands
    for all others. It raises ImportError for those, AttributeError for what nobody knows.
    """

    OUT[module] = out

    def find(name: str) -> Any:
        if name in found:
            return getattr(importlib.import_module(found[name]), name)
        is_private = name.startswith("_")
        instead = out.get(name) or (None if is_private else out.get("*"))
        if instead is not None:
            raise ImportError(f"meshhost does not have {module}.{name}: {instead}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
