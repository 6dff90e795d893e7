"""What tests need and a target of the Makefile fetches: programs of Node, mails of other projects."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["made"]

_ROOT = Path(__file__).parents[2]


def made(target: str, *, needs: str = "make") -> Path:
    """The folder that `make TARGET` fetches into and prints; it is fetched when it is not there yet.

    Skips where that cannot be, for want of the program `needs` or of a network; in CI that is a failure.
    """
    if shutil.which(needs) is None:
        reason = f"this machine has no {needs}"
    else:
        command = ["make", "--silent", "--no-print-directory", target]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return Path(done.stdout.strip())
        reason = f"`make {target}` failed: {done.stderr[-500:]}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
