import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshhost.hosting.threads import busy_threads, described, threads_end


@pytest.fixture
def blocked():
    """A thread of this name that blocks until the test ends."""
    end, threads = threading.Event(), []

    def start(name, **options):
        thread = threading.Thread(target=end.wait, name=name, **options)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    end.set()
    for thread in threads:
        thread.join()


def test_daemons_and_idle_workers_of_executors_are_not_waited_for(blocked):
    before = set(busy_threads())
    blocked("a daemon", daemon=True)
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as executor:
        executor.submit(int).result()
        end = time.monotonic() + 5
        while set(busy_threads()) != before and time.monotonic() < end:
            time.sleep(0.01)
        assert set(busy_threads()) == before
        here, gone = threading.Event(), threading.Event()
        executor.submit(lambda: (here.set(), gone.wait()))
        here.wait(5)
        busy = [thread.name for thread in set(busy_threads()) - before]
        gone.set()
    assert busy == ["pool_0"]


async def test_threads_that_do_not_end_are_named_with_their_stacks(blocked, caplog):
    caplog.set_level(logging.INFO)
    culprit = blocked("the culprit")
    async with asyncio.timeout(10):
        assert not await threads_end(0.2)
    assert culprit.is_alive()
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    (text,) = [text for text in record.threads if text.startswith("the culprit")]
    assert "wait (threading.py:" in text


async def test_threads_that_end_are_waited_for(caplog):
    thread = threading.Thread(target=time.sleep, args=(0.2,))
    thread.start()
    assert await threads_end(5)
    assert not thread.is_alive()
    assert "WARNING" not in {record.levelname for record in caplog.records}


async def test_a_thread_of_asyncio_counts_also_while_it_is_in_c():
    sleeping = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.3)
    await asyncio.sleep(0.05)
    assert any(thread.name.startswith("asyncio_") for thread in busy_threads())
    await sleeping


def test_many_threads_are_shortened(blocked):
    threads = [blocked(f"one of many {number}") for number in range(23)]
    assert len(described(threads)) == 21
    assert described(threads)[-1] == "3 more"
