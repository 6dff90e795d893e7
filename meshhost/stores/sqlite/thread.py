"""One thread for one SQLite file: operations that wait at the same time share one commit (group commit).

A durable commit costs an fsync, often several milliseconds. The stores hand operations to this thread; it takes those that
wait, runs each inside a savepoint, commits once, and only then completes the futures of their callers. So sixty-four
senders at once cost hardly more than one, and the event loop never waits for the disk.

Each operation belongs to a tenant, and tenants take turns (`../shared/fair.py`). A batch has as many operations as waited when
it began, but which ones is decided one by one while it runs: one of another tenant that comes meanwhile is next. While several
tenants wait, a batch also ends after a short time, so that nobody waits for the commit of a thousand operations of another.

The thread is the only user of the connection. An operation that raises is rolled back alone; when the store itself fails (I/O
error), the whole batch is rolled back and each of its callers gets OSError. When the disk is full, each operation of the batch
is tried alone, and gets StorageFullError where there is no room for it. Invariants: a caller gets its result only after the
commit; a file is tidied (`tidy.py`) only while there is no operation; an operation runs even when its caller was cancelled;
after `stop` nothing is accepted, and what was accepted before is finished.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from meshhost.errors import RoomError
from meshhost.stores.disk.space import storage_full
from meshhost.stores.shared.fair import FairQueue, TenantWeights
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.stores.sqlite.pace import DEFAULT_PACE, Pace
from meshhost.stores.sqlite.space import FreeSpace
from meshhost.stores.sqlite.tidy import Tidier

__all__ = ["Operation", "SqliteThread"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Operation: TypeAlias = Callable[[sqlite3.Connection], T]

_LOG_FULL_SECONDS = 30.0


@dataclass(slots=True)
class _Job:
    operation: Operation[Any]
    future: asyncio.Future[Any]
    is_durable: bool
    result: Any = None
    error: BaseException | None = None

    def complete(self) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SqliteThread:
    """Runs atomic operations on a file between `start` and `stop`, at this `pace`. An instance is used once."""

    def __init__(self, file: SqliteFile, *, weights: TenantWeights | None = None, pace: Pace = DEFAULT_PACE) -> None:
        self._file = file
        self._pace = pace
        self.space = FreeSpace(file.path, seconds=pace.space_seconds)
        self._log_full_again_at = 0.0
        self._tidier = Tidier(file.path)
        self._syncs: tuple[sqlite3.Connection | None, bool] = (None, True)
        self._is_untidy = True  # since the last commit, or by an earlier process
        self._jobs: FairQueue[_Job] = FairQueue(weights)
        self._changed = threading.Condition()  # guards the jobs and what is known of them
        self._durable = 0  # of the jobs that wait
        self._stopping = False
        self._commit_seconds = 0.0
        self._opened = _uncancellable()
        self._ended = _uncancellable()

    async def start(self) -> None:
        """Open the file. Raises SettingsError, OSError."""
        threading.Thread(target=self._main, name=f"sqlite {self._file.path.name}", daemon=True).start()
        try:
            await asyncio.wrap_future(self._opened)
        except asyncio.CancelledError:
            self._end()
            raise

    async def run(self, operation: Operation[T], *, is_durable: bool = True, tenant: str = "") -> T:
        """Return what the operation returned, once that is durable; raise what it raised, and then nothing of it is done.

        One that is not durable is committed too, and survives the end of this process, but perhaps not a power cut. Raises
        OSError when the store failed and RoomError when it is not open. An operation whose caller is cancelled runs all the
        same.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._stopping:
                raise RoomError(f"the {self._file.what} is not open")
            self._jobs.put(_Job(operation, future, is_durable), tenant)
            self._durable += is_durable
            self._changed.notify()
        return await future

    async def stop(self) -> None:
        """Finish what was accepted and close the file. May be called more than once."""
        self._end()
        await asyncio.wrap_future(self._ended)

    def _end(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _main(self) -> None:
        try:
            self._file.open()
        except BaseException as error:  # noqa: BLE001 - raised where `start` is awaited
            self._ended.set_result(None)
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        self._work()
        self._file.close()
        self._ended.set_result(None)

    def _work(self) -> None:
        while self._wait_for_jobs():
            with self._changed:
                size, is_durable = min(len(self._jobs), self._pace.max_batch), self._durable > 0
                batch = [self._take()]
            try:
                self._commit(batch, size, is_durable=is_durable)
            except Exception as error:  # noqa: BLE001 - all callers must get it, whatever it is, and the thread must go on
                with self._changed:
                    batch += [self._take() for _ in range(min(size - len(batch), len(self._jobs)))]
                self._fail(batch, error)
            _deliver(batch)

    def _take(self) -> _Job:
        job = self._jobs.get()
        self._durable -= job.is_durable
        return job

    def _take_another(self, end: float, *, is_durable: bool) -> _Job | None:
        """The next job of a batch, if there is one that fits in: one that must be durable is not for a batch that is not."""
        with self._changed:
            if not self._jobs or (not is_durable and self._jobs.peek().is_durable):
                return None
            if self._jobs.is_shared and time.monotonic() >= end:
                return None
            return self._take()

    def _wait_for_jobs(self) -> bool:
        """Wait for a job, and tidy the file meanwhile; one step at a time, as a job that comes waits for its end.

        False: there is none and there will be none.
        """
        pause = self._pace.idle_seconds
        while True:
            with self._changed:
                is_untidy = self._is_untidy
                self._changed.wait_for(lambda: self._jobs or self._stopping, pause if is_untidy else None)
                if self._jobs or self._stopping:
                    return bool(self._jobs)
            pause = self._pace.step_pause
            try:
                self._is_untidy = self._tidier.step(self._file.connection())
            except Exception as error:
                logger.debug("store not tidied", extra={"path": str(self._file.path)}, exc_info=error)
                self._is_untidy = False

    def _commit(self, batch: list[_Job], size: int, *, is_durable: bool) -> None:
        """Run the job in `batch`, and others, which are added to it, up to `size`; then commit."""
        connection = self._file.connection()
        self._sync(connection, is_durable=is_durable)
        connection.execute("BEGIN IMMEDIATE")
        end = time.monotonic() + max(self._pace.batch_seconds, self._pace.commits * self._commit_seconds)
        job: _Job | None = batch[0]
        while job is not None:
            _run(connection, job)
            job = self._take_another(end, is_durable=is_durable) if len(batch) < size else None
            batch += [] if job is None else [job]
        begin = time.monotonic()
        connection.execute("COMMIT")
        self._commit_seconds = time.monotonic() - begin
        self._is_untidy = True

    def _fail(self, batch: Sequence[_Job], error: Exception) -> None:
        self._roll_back(batch, error)
        if _is_full(error) and len(batch) > 1:
            # One that needs much room must not fail those that need none, or free some.
            for job in batch:
                job.error = job.result = None
                try:
                    self._commit([job], 1, is_durable=job.is_durable)
                except Exception as alone:  # noqa: BLE001 - as for a whole batch
                    self._roll_back([job], alone)

    def _sync(self, connection: sqlite3.Connection, *, is_durable: bool) -> None:
        """Have the next commit wait for the disk or not. A commit that waits makes durable what others left behind."""
        if (connection, is_durable) != self._syncs:
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            self._syncs = (connection, is_durable)

    def _roll_back(self, batch: Sequence[_Job], cause: Exception) -> None:
        self._log(cause, len(batch))
        try:
            connection = self._file.connection()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - the next batch opens a new connection, and fails if that does
            self._file.discard()
        text = f"the {self._file.what} {self._file.path} failed: {cause}"
        for job in batch:
            job.error = storage_full() if _is_full(cause) else OSError(text)
            job.error.__cause__ = cause

    def _log(self, cause: Exception, operations: int) -> None:
        if _is_full(cause):
            # Every sender comes again and again until there is room.
            if time.monotonic() < self._log_full_again_at:
                return
            self._log_full_again_at = time.monotonic() + _LOG_FULL_SECONDS
        logger.warning("store failed", extra={"path": str(self._file.path), "operations": operations}, exc_info=cause)


def _uncancellable() -> Future[None]:
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _run(connection: sqlite3.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT operation")
    try:
        job.result = job.operation(connection)
    except Exception as error:
        if _is_failing_store(error):
            raise
        job.error = error
        connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")


def _is_full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _is_failing_store(error: Exception) -> bool:
    # SQLite may have rolled the whole transaction back by then. Its other errors are about one statement's values.
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _deliver(batch: Sequence[_Job]) -> None:
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in batch:
        by_loop[job.future.get_loop()].append(job)
    for loop, jobs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_complete, jobs)


def _complete(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.complete()
