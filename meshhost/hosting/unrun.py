"""Says at the end of a program that it made a service host and never ran it.

Such a program binds its paths, reaches its last line and ends with exit code 0, without a word of what is missing. `remember`
is called by each host that binds a path, `forget` by each that is started. At the exit of the interpreter a line is written if
the program holds a host that is still remembered. A host that nobody holds, or that a test or an imported module made, is no
such mistake: only the names of the program's main module count. Nothing is said after an error or a request for help.
"""

import atexit
import sys
import weakref
from typing import Any

__all__ = ["forget", "remember"]

_unrun: "weakref.WeakSet[Any]" = weakref.WeakSet()


def remember(host: Any) -> None:
    """The host has a path, and was not started yet."""
    if not _unrun:
        atexit.unregister(_report)
        atexit.register(_report)
    _unrun.add(host)


def forget(host: Any) -> None:
    """The host was started."""
    _unrun.discard(host)


def _report() -> None:
    hosts = list(_unrun)
    names = [name for name, value in vars(sys.modules["__main__"]).items() if any(value is host for host in hosts)]
    # `last_value` is set by Python when the program ends by an error.
    if names and not hasattr(sys, "last_value") and not {"-h", "--help"} & set(sys.argv):
        sys.stderr.write(
            f"meshhost: the program ended and never ran its host: end it with asyncio.run({names[0]}.run())\n"
        )
