"""A database that is read-only or has no room: senders are told, nothing accepted is lost, and afterwards no hand is needed."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from doubles.disk import fill, small_file_system
from doubles.postgres import PostgresServer

from meshhost.errors import RoomError, SettingsError, StorageFullError
from meshhost.room.client import RoomClient
from meshhost.stores.sqlite.file import SqliteFile
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LARGE = "x" * 200_000


async def readiness(server: RunningServer) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/readyz") as response:
        return response.status, (await response.json()).get("reason", "")


async def posted(server: RunningServer, body: Any) -> tuple[int, str]:
    """What REST answers to a send."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    url = f"{server.url}/rooms/room/queues/jobs/messages"
    async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as response:
        return response.status, await response.text()


async def refused_then_recovered(
    server: RunningServer,
    room: RoomClient,
    fail: Callable[[], object],
    mend: Callable[[], object],
    error: type[RoomError] = RoomError,
) -> None:
    """Sends and acks around a failure: each is refused with an error or kept."""
    is_full = error is StorageFullError
    text = "storage full" if is_full else "the room server cannot use its data now; its log says why"
    accepted = [await room.queues.send(name="jobs", message=number) for number in range(3)]
    leased = await room.queues.lease(name="jobs")
    assert leased is not None
    await asyncio.to_thread(fail)
    for number in range(3):
        with pytest.raises(error, match=text):
            await room.queues.send(name="jobs", message=[number, LARGE])
    status, told = await posted(server, [LARGE])
    assert status == (507 if is_full else 503)
    assert text in json.loads(told)["error"]
    status, reason = await readiness(server)
    assert status == 503
    assert reason.startswith("storage full" if is_full else "the queue store does not answer")
    await asyncio.to_thread(mend)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(RoomError):
                accepted.append(await room.queues.send(name="jobs", message="again"))
                break
    await leased.ack()
    async with asyncio.timeout(30):
        while (await readiness(server))[0] != 200:  # noqa: ASYNC110 - its last answer is kept for a moment
            await asyncio.sleep(0.1)
    found = {record.id: record.state async for record in room.queues.find("jobs")}
    assert found == {sent: "done" if sent == leased.id else "ready" for sent in accepted}


async def test_a_read_only_sqlite_file_is_told_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite says it when the system has made the disk read-only after an error of it."""
    is_read_only = False
    connection = SqliteFile.connection

    def switched(self: SqliteFile) -> sqlite3.Connection:
        found = connection(self)
        found.execute(f"PRAGMA query_only = {int(is_read_only)}")
        return found

    monkeypatch.setattr(SqliteFile, "connection", switched)

    def switch(to: bool) -> None:
        nonlocal is_read_only
        is_read_only = to

    async with running_server(tmp_path) as server, server.client() as room:
        await refused_then_recovered(server, room, lambda: switch(True), lambda: switch(False))


async def test_a_read_only_postgres_is_told_and_survived(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """As after a failover, when connections lead to what is a replica now."""
    url = postgres_server.new_database()
    with psycopg.connect(url) as connection:
        name = connection.info.dbname

    def switch(to: str) -> None:
        postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {to}")
        if to == "on":  # new sessions only
            postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    async with running_server(tmp_path, database_url=url) as server, server.client() as room:
        await refused_then_recovered(server, room, lambda: switch("on"), lambda: switch("off"))


async def test_a_full_disk_of_postgres_is_told_and_survived(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """The tables are on the small disk, the log is not: without room for that PostgreSQL itself ends."""
    with (
        tempfile.TemporaryDirectory(prefix="meshhost-disk-") as outer,
        small_file_system(Path(outer) / "disk") as disk,
        tables_on(postgres_server, disk) as url,
    ):
        async with running_server(tmp_path, database_url=url) as server, server.client() as room:
            await refused_then_recovered(server, room, lambda: fill(disk), (disk / "filler").unlink, StorageFullError)


@contextmanager
def tables_on(server: PostgresServer, disk: Path) -> Iterator[str]:
    """A database whose tables are in a folder of this file system."""
    disk.parent.chmod(0o755)
    (disk / "tables").mkdir()
    if server.user is not None:
        shutil.chown(disk / "tables", server.user)
    server.execute(f"CREATE TABLESPACE small LOCATION '{disk / 'tables'}'")
    url = server.new_database("TABLESPACE small")
    try:
        yield url
    finally:
        with psycopg.connect(url) as connection:
            name = connection.info.dbname
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        server.execute("DROP TABLESPACE small")


async def test_a_full_disk_of_sqlite_is_told_and_survived(small_disk: Path) -> None:
    async with running_server(small_disk / "data") as server, server.client() as room:
        filler = small_disk / "filler"
        await refused_then_recovered(server, room, lambda: fill(small_disk), filler.unlink, StorageFullError)


async def test_a_server_does_not_start_on_a_read_only_disk_and_does_when_it_can_be_written(small_disk: Path) -> None:
    data = small_disk / "data"
    async with running_server(data) as server, server.client() as room:
        await room.queues.send(name="jobs", message=1)
    remount(small_disk, "ro")
    with pytest.raises(SettingsError, match="is not writable"):
        async with running_server(data, key=server.key):
            pass
    remount(small_disk, "rw")
    async with running_server(data, key=server.key) as again, again.client() as room:
        assert [record.message async for record in room.queues.find("jobs")] == [1]


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)
