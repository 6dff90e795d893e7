"""A process that computes for long makes way for others, with all its threads, and comes back where that is permitted."""

import os
import subprocess
import sys

import pytest

from meshhost.tables.priority import HEAVY, USUAL, set_priority

THREADS = "import sys, threading; threading.Thread(target=sys.stdin.read).start(); print(flush=True)"


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads")
def test_the_priority_of_each_thread_is_set() -> None:
    with subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]  # noqa: PTH208
        assert len(threads) == 2
        set_priority(process.pid, HEAVY)
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {HEAVY}
        set_priority(process.pid, USUAL)  # without the right to raise it, it stays
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} <= {USUAL, HEAVY}
        process.communicate(b"")
    set_priority(process.pid, HEAVY)  # it is gone
