"""Which service hosts `meshhost service run` has started on this machine, for the commands of `meshhost host`.

`service run` lets its program listen on a free port, which nobody else knows. While the program runs, a file in the directory
`hosts` of the configuration directory says where it is. Such a file is a hint for this user's commands and no more: a directory
that cannot be written is no reason not to run, and the file of a process that is gone counts for nothing.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["announced", "running_hosts"]


@contextmanager
def announced(config_dir: Path, url: str, *, room: str) -> Iterator[None]:
    """Say for the length of the block that a host which this process started listens at the URL."""
    file = _directory(config_dir) / f"{os.getpid()}.json"
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(json.dumps({"url": url, "room": room}))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def running_hosts(config_dir: Path) -> dict[str, str]:
    """Return the URLs of the hosts that are announced, each with the room that it was run for. Removes files that are stale."""
    found = {}
    with contextlib.suppress(OSError):
        for file in sorted(_directory(config_dir).glob("*.json")):
            if not _is_running(file.stem):
                file.unlink(missing_ok=True)
                continue
            with contextlib.suppress(ValueError, KeyError, TypeError):
                content = json.loads(file.read_text())
                found[str(content["url"])] = str(content["room"])
    return found


def _directory(config_dir: Path) -> Path:
    return config_dir / "hosts"


def _is_running(number: str) -> bool:
    try:
        os.kill(int(number), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
