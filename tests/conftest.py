"""What every test must leave behind: nothing. And the database server that tests share."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio
from doubles.disk import small_file_system
from doubles.pgbouncer import running_pgbouncer
from doubles.ports import free_port
from doubles.postgres import PostgresServer, running_postgres

# How long one example takes says more about the machine than about the code: no deadline. `make check` asks for fewer
# examples (--hypothesis-profile); tests that set their own number keep it.
hypothesis.settings.register_profile("full", deadline=None)
hypothesis.settings.register_profile("check", deadline=None, max_examples=25)
hypothesis.settings.load_profile("full")

# What was cancelled or closed at the end of a test may need this long to end.
_GRACE_SECONDS = 0.5


@pytest.fixture
def unused_tcp_port() -> int:
    """In place of pytest-asyncio's, whose port any outgoing connection may take before the test does."""
    return free_port()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, started at first use. It does not wait for the disk: no test that shares it cuts the power."""
    with running_postgres() as server:
        server.execute("ALTER SYSTEM SET fsync = off")
        server.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of `postgres_server`'s own database through a pgbouncer in transaction mode."""
    with running_pgbouncer(postgres_server) as url:
        yield url


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of forty megabytes."""
    with small_file_system(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """What a test does to logging, as commands and `otel_config` do, ends with it."""
    loggers = [logging.getLogger(), logging.getLogger("meshhost")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def clean_loop(request: pytest.FixtureRequest) -> None:
    """Tests that run on an event loop leave no task behind, and no error that only the loop has seen."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("watched_loop")


@pytest_asyncio.fixture
async def watched_loop() -> AsyncIterator[None]:
    """Fails the test at its end for tasks left over and for errors reported to the loop's exception handler."""
    loop = asyncio.get_running_loop()
    errors: list[str] = []
    handler, before = loop.get_exception_handler(), asyncio.all_tasks()
    loop.set_exception_handler(lambda _, context: errors.append(_described(context)))
    try:
        yield
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=_GRACE_SECONDS)
    finally:
        loop.set_exception_handler(handler)
    if left:
        pytest.fail(f"the test left tasks behind: {sorted(repr(task) for task in left)}", pytrace=False)
    if errors:
        pytest.fail(f"the event loop saw errors that nobody took: {errors}", pytrace=False)


def _described(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r} ({context.get('task') or context.get('future')!r})"
