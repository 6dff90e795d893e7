"""What processes of agents use of CPython's private parts is needed, and does what it says, on the Python that runs this.

Each test runs a program with this interpreter, since it forks inside of a running event loop.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking needs Linux")

BEGINNING = """
import asyncio, atexit, gc, json, os, signal, sys, threading
from meshhost.hosting.processes import cpython

def forked(child):
    '''What the child returns, as JSON; it exits without unwinding anything.'''
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            found = child()
        except BaseException as error:
            found = repr(error)
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = json.load(answer)
    os.wait()
    return found

def run_own_loop():
    async def work():
        await asyncio.sleep(0)
        return asyncio.current_task() is not None
    try:
        with asyncio.Runner() as runner:
            return runner.run(work())
    except RuntimeError as error:
        return repr(error)
"""


def result_of(program: str) -> Any:
    """The JSON that the program prints. Warnings are errors, as everywhere in these tests."""
    # Python warns of forks of a process with threads; only the parent of one test has some, after its forks.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGINNING + program], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_child_forked_in_a_loop_leaves_it_and_runs_one_of_its_own() -> None:
    found = result_of("""
async def main():
    loop = asyncio.get_running_loop()
    def stay():
        return {"is_in_task": asyncio.current_task(loop) is not None, "runs": run_own_loop()}
    def leave():
        cpython.leave_loop(loop)
        try:
            running = repr(asyncio.get_running_loop())
        except RuntimeError:
            running = None
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        is_in_task = asyncio.current_task(loop) is not None
        return {"is_in_task": is_in_task, "running": running, "is_default": is_default, "runs": run_own_loop()}
    print(json.dumps([forked(stay), forked(leave)]))
asyncio.run(main())
""")
    stayed, left = found
    assert left == {"is_in_task": False, "running": None, "is_default": True, "runs": True}
    # Needed: without it, the child is in a task of its parent (to 3.13), or cannot run one of its own (from 3.14 on).
    assert stayed["is_in_task"] or stayed["runs"] is not True


@pytest.mark.parametrize("how", ["close_loop_of_parent", "close"])
def test_a_child_that_closes_the_loop_of_its_parent_part_by_part_does_not_disturb_it(how: str) -> None:
    found = result_of(f"""
how = {how!r}
async def main():
    loop = asyncio.get_running_loop()
    def close():
        # The parts are still there to be closed: the loop has registered its own pipe and nothing else.
        assert not cpython.waits_for_files(loop)
        assert len(cpython.loop_descriptors(loop)) == 3
        cpython.leave_loop(loop)
        if how == "close":
            loop._thread_id = None  # or it would not close, since it counts as running
            loop.close()
        else:
            cpython.close_loop_of_parent(loop)
        return [loop.is_closed(), run_own_loop()]
    found = forked(close)
    woken = asyncio.Event()
    thread = threading.Timer(0.05, lambda: loop.call_soon_threadsafe(woken.set))
    thread.start()
    # A loop that cannot be woken sees the event only when this timeout wakes it.
    try:
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(woken.wait())), 1.0)
        before = loop.time()
    except TimeoutError:
        before = None
    print(json.dumps([found, before is not None]))
asyncio.run(main())
""")
    assert found == [[True, True], how == "close_loop_of_parent"]


def test_files_and_tasks_that_are_waited_for_are_seen() -> None:
    found = result_of("""
async def main():
    loop, read, write = asyncio.get_running_loop(), *os.pipe()
    before = cpython.waits_for_files(loop)
    loop.add_reader(read, print)
    after = cpython.waits_for_files(loop)
    loop.remove_reader(read)
    inner = asyncio.ensure_future(asyncio.Event().wait())
    async def wait():
        await inner
    async def gather():
        await asyncio.gather(inner)
    outer = [asyncio.ensure_future(wait()), asyncio.ensure_future(gather())]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print(json.dumps([before, after, *(inner in set(cpython.awaited_by(task)) for task in outer)]))
    for task in (inner, *outer):
        task.cancel()
    await asyncio.gather(inner, *outer, return_exceptions=True)
asyncio.run(main())
""")
    assert found == [False, True, True, True]


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_exit_functions_are_those_of_the_process_that_registered_them(is_forgotten: bool) -> None:
    found = result_of(f"""
ran = []
atexit.register(ran.append, "parent")
def child():
    if {is_forgotten}:
        cpython.forget_exit_functions()
    atexit.register(ran.append, "child")
    cpython.run_exit_functions()
    return ran
print(json.dumps(forked(child)))
""")
    assert found == (["child"] if is_forgotten else ["child", "parent"])


def test_a_child_runs_with_the_flags_of_its_host() -> None:
    program = "import sys; from meshhost.hosting.processes import cpython; print(*cpython.interpreter_flags())"
    done = subprocess.run(
        [sys.executable, "-O", "-X", "utf8", "-W", "error", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert {"-O", "-Werror", "utf8"} <= set(done.stdout.replace("-Xutf8", "-X utf8").split())
