"""A second connection to a SQLite file, for reads that may take long: they do not hold the thread that writes.

`SqliteThread` runs one operation after another, so a count of a million rows there delays every send of every tenant. In WAL
mode a reader blocks no writer: each operation here sees one moment, that of the last commit before it began. A caller whose
change has returned finds it. Reads go one after another, tenants by turns, on one thread of their own, and hold the event loop
as little as those that write. An operation must be short enough for other readers, and page what is large: while it runs, the
WAL grows.
"""

import asyncio
import contextlib
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from meshhost.errors import RoomError
from meshhost.stores.shared.fair import FairQueue, TenantWeights
from meshhost.stores.sqlite.thread import Operation

__all__ = ["SqliteReader"]

T = TypeVar("T")


class SqliteReader:
    """Reads the file `path`, which another connection keeps open; `what` is the store's name in errors.

    An instance is used once, until `stop`. Only its one thread touches the connection.
    """

    def __init__(self, path: Path, what: str, *, weights: TenantWeights | None = None) -> None:
        self._path = path
        self._what = what
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite reader {path.name}")
        self._connection: sqlite3.Connection | None = None
        self._stopped = False
        self._waiting: FairQueue[tuple[Operation[Any], Future[Any]]] = FairQueue(weights)
        self._lock = threading.Lock()  # of what waits

    async def run(self, operation: Operation[T], *, tenant: str = "") -> T:
        """Return what the operation returned, or raise what it raised. Raises OSError when the store failed.

        The operation must only read.
        """
        if self._stopped:
            raise RoomError(f"the {self._what} is not open")
        future: Future[T] = Future()
        with self._lock:
            self._waiting.put((operation, future), tenant)
        # The thread gets a turn for it, which may serve another one that is next by then.
        self._thread.submit(self._read_next)
        return await asyncio.wrap_future(future)

    async def stop(self) -> None:
        """Finish what was begun and close the connection. Idempotent."""
        if not self._stopped:
            self._stopped = True
            closing: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(self._thread, self._discard)
            self._thread.shutdown(wait=False)
            await closing

    def _read_next(self) -> None:
        with self._lock:
            operation, future = self._waiting.get()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._read(operation))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)

    def _read(self, operation: Operation[T]) -> T:
        try:
            if self._connection is None:
                uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
                self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._connection.execute("BEGIN")
            try:
                return operation(self._connection)
            finally:
                self._connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            self._discard()
            raise OSError(f"the {self._what} {self._path} failed: {error}") from error

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
