"""`meshhost db` beside real room servers: backups under load, migrations by two processes at once, PostgreSQL."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from doubles.postgres import PostgresServer

from meshhost.cli.main import run
from meshhost.errors import RoomError, SettingsError
from meshhost.room.client import RoomClient
from meshhost.stores.postgres.upkeep import PostgresUpkeep, tool_version
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MESHHOST = [sys.executable, "-m", "meshhost.cli.main", "db"]
OPERATOR = "an-operators-key-for-tests"
STORES = ["configuration", "documents", "identity", "queues", "triggers", "usage"]


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MESHHOST, *arguments], capture_output=True, text=True, timeout=60, check=False)


async def drained(room: RoomClient) -> list[int]:
    """The numbers of all messages of the queue."""
    found = []
    while (message := await room.queues.lease(name="jobs", wait=False)) is not None:
        found.append(message.message["number"])
        await message.ack()
    return found


async def test_a_backup_under_load_has_all_that_was_accepted_before_it_began(tmp_path: Path) -> None:
    accepted: list[int] = []
    some, is_over = asyncio.Event(), asyncio.Event()

    async with running_server(tmp_path / "data") as server:

        async def send(first: int) -> None:
            async with server.client(name=f"sender-{first}") as room:
                number = first
                while not is_over.is_set():
                    await room.queues.send(name="jobs", message={"number": number, "text": "x" * 2000})
                    accepted.append(number)
                    number += 8
                    if len(accepted) > 200:
                        some.set()

        async with asyncio.TaskGroup() as tasks:
            for first in range(8):
                tasks.create_task(send(first))
            await some.wait()
            before = set(accepted)
            done = await asyncio.to_thread(
                called, "backup", str(tmp_path / "a.tar"), "--data-dir", str(tmp_path / "data")
            )
            sent_meanwhile = set(accepted) - before
            is_over.set()
        assert (done.returncode, done.stderr) == (0, "")
        looked = await asyncio.to_thread(called, "check", "--json", "--data-dir", str(tmp_path / "data"))
        assert json.loads(looked.stdout)["in_use"] is True
        refused = await asyncio.to_thread(
            called, "restore", str(tmp_path / "a.tar"), "--force", "--yes", "--data-dir", str(tmp_path / "data")
        )
        assert refused.returncode == 1
        assert "is in use" in refused.stderr
    assert sent_meanwhile  # it was a backup under load
    done = await asyncio.to_thread(called, "restore", str(tmp_path / "a.tar"), "--data-dir", str(tmp_path / "new"))
    assert (done.returncode, done.stderr) == (0, "")
    async with running_server(tmp_path / "new", key=server.key) as restored, restored.client(name="reader") as room:
        found = await drained(room)
    assert before <= set(found)
    assert len(found) == len(set(found))


def test_two_processes_migrate_the_same_files_at_once(tmp_path: Path) -> None:
    migrated_by_two(["--data-dir", str(tmp_path / "data")])


def test_two_processes_migrate_the_same_database_at_once(postgres_server: PostgresServer) -> None:
    migrated_by_two(["--database-url", postgres_server.new_database()])


def migrated_by_two(options: list[str]) -> None:
    """Both succeed, one of them does everything and the other nothing."""
    command = [*MESHHOST, "migrate", "--json", *options]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    changed = [sorted(change["store"] for change in json.loads(out)) for out, _ in outputs]
    assert sorted(changed) == [[], STORES]
    assert called("check", *options).returncode == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from meshhost.cli.main import main

left, rename = int(sys.argv.pop(1)), Path.rename

def counted(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.rename = counted
main()
"""


@pytest.mark.parametrize("renames", [0, 3, 7, 9])
async def test_a_restore_that_is_killed_is_noticed_by_servers_and_can_be_done_again(
    tmp_path: Path, renames: int
) -> None:
    async with running_server(tmp_path / "data") as server, server.client() as room:
        await room.queues.send(name="jobs", message={"number": 1})
    async with running_server(tmp_path / "new") as other, other.client() as room:
        await room.queues.send(name="jobs", message={"number": 2})
    archive, options = str(tmp_path / "a.tar"), ["--force", "--yes", "--data-dir", str(tmp_path / "new")]
    assert (await asyncio.to_thread(called, "backup", archive, "--data-dir", str(tmp_path / "data"))).returncode == 0
    command = [sys.executable, "-c", KILLED, str(renames), "db", "restore", archive, *options]
    killed = await asyncio.to_thread(subprocess.run, command, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(SettingsError, match="did not finish"):
        async with running_server(tmp_path / "new", key=server.key):
            pass
    assert (await asyncio.to_thread(called, "check", *options[2:])).returncode == 1
    done = await asyncio.to_thread(called, "restore", archive, *options)
    assert (done.returncode, done.stderr) == (0, "")
    async with running_server(tmp_path / "new", key=server.key) as restored, restored.client(name="reader") as room:
        assert await drained(room) == [1]


# PostgreSQL


async def test_a_database_is_looked_at_before_and_after_it_is_migrated(postgres_server: PostgresServer) -> None:
    upkeep = PostgresUpkeep(postgres_server.new_database())
    problem = (await upkeep.look()).problem
    assert problem is not None
    assert "no databases" in problem
    changes = await upkeep.migrate()
    assert [(change.store, change.before) for change in changes] == [(store, 0) for store in STORES]
    assert await upkeep.migrate() == []
    report = await upkeep.look()
    assert report.problem is None
    assert report.is_in_use is False
    assert report.server is not None
    assert report.server.startswith("PostgreSQL ")
    assert sum(store.bytes for store in report.stores) > 0


async def test_a_room_server_on_the_database_is_seen_and_keeps_migrations_away(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.new_database()
    upkeep = PostgresUpkeep(url, wait_seconds=0.1)
    async with running_server(tmp_path, database_url=url):
        assert (await upkeep.look()).is_in_use is True
        assert await upkeep.migrate() == []  # of the same version: nothing to do
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE meshhost.versions SET version = 0 WHERE store = 'usage'")
        with pytest.raises(SettingsError, match="another room server uses this database"):
            await upkeep.migrate()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM meshhost.contents", "queues: the database has 1 messages without their content"),
        ("DELETE FROM meshhost.messages", "queues: the database has 1 contents without a message"),
        ("UPDATE meshhost.versions SET version = 99 WHERE store = 'usage'", "usage: version 99 of the schema is newer"),
    ],
)
async def test_a_database_that_is_not_whole_is_found(
    postgres_server: PostgresServer, tmp_path: Path, statement: str, problem: str
) -> None:
    url = postgres_server.new_database()
    async with running_server(tmp_path, database_url=url) as server, server.client() as room:
        await room.queues.send(name="jobs", message={})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
    found = (await PostgresUpkeep(url).look()).problem
    assert found is not None
    assert found.startswith(problem)


async def test_a_database_that_does_not_answer_is_an_error(postgres_server: PostgresServer) -> None:
    with pytest.raises((OSError, RoomError)):
        await PostgresUpkeep(f"{postgres_server.url}&dbname=none").look()


def test_the_commands_for_a_dump_name_the_database_and_no_password(
    postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres_server.new_database()
    assert run(["db", "backup", "my backup.dump", "--database-url", f"{url}&password=secret"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("pg_dump --format=custom --schema=meshhost '--file=my backup.dump' --host=")
    assert "secret" not in shown.out + shown.err
    assert run(["db", "restore", "my backup.dump", "--database-url", url]) == 0
    assert capsys.readouterr().out.startswith("pg_restore --single-transaction")
    assert run(["db", "restore", "my backup.dump", "--check", "--database-url", url]) == 0
    assert capsys.readouterr().out == "pg_restore --list 'my backup.dump'\n"


def test_a_dump_program_that_is_too_old_or_missing_is_reported(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool_version("pg_dump") is None
    run(["db", "backup", "x", "--database-url", postgres_server.url])
    assert "pg_dump is not installed here" in capsys.readouterr().err
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.3 (Debian 12.3-1)'\n")
    program.chmod(0o755)
    assert tool_version("pg_dump") == 12
    run(["db", "backup", "x", "--database-url", postgres_server.url])
    assert "is of version 12, too old for PostgreSQL" in capsys.readouterr().err


async def test_tenants_and_rooms_move_from_sqlite_to_postgresql_by_their_archives(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHHOST_OPERATOR_KEY", OPERATOR)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))

    async def meshhost(server: RunningServer, *arguments: str) -> str:
        environment = {**os.environ, "MESHHOST_API_URL": server.url, "MESHHOST_API_KEY": server.api_key}
        command = [*MESHHOST[:-1], *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    acme, lobby = str(tmp_path / "acme.tar"), str(tmp_path / "lobby.tar")
    async with running_server(tmp_path / "old", operator_key=OPERATOR) as old:
        async with old.client("lobby") as room:
            await room.queues.send(name="jobs", message={"number": 1})
        await meshhost(old, "tenant", "create", "acme")
        await meshhost(old, "tenant", "suspend", "acme")
        await meshhost(old, "tenant", "export", "acme", acme)
        await meshhost(old, "room", "export", "lobby", lobby)
    url = postgres_server.new_database()
    assert len(await PostgresUpkeep(url).migrate()) == len(STORES)
    async with running_server(tmp_path / "new", database_url=url, operator_key=OPERATOR, key=old.key) as new:
        await meshhost(new, "tenant", "import", acme)
        await meshhost(new, "key", "create", "--tenant", "acme")
        await meshhost(new, "room", "import", lobby)
        assert "acme\tactive" in await meshhost(new, "tenant", "list")
        async with new.client("lobby") as room:
            assert await drained(room) == [1]
    assert (await PostgresUpkeep(url).look()).problem is None


async def test_what_the_commands_dump_is_what_they_restore(postgres_server: PostgresServer, tmp_path: Path) -> None:
    programs = postgres_server.programs
    url, new, file = postgres_server.new_database(), postgres_server.new_database(), str(tmp_path / "a.dump")
    async with running_server(tmp_path / "one", database_url=url) as server, server.client() as room:
        for number in range(10):
            await room.queues.send(name="jobs", message={"number": number})
        dump = f"{programs}/{PostgresUpkeep(url).dump_command(file)}"  # while the server runs
        await asyncio.to_thread(subprocess.run, dump, shell=True, check=True)
    restore = f"{programs}/{PostgresUpkeep(new).restore_command(file)}"
    await asyncio.to_thread(subprocess.run, restore, shell=True, check=True)
    assert (await PostgresUpkeep(new).look()).problem is None
    async with running_server(tmp_path / "two", database_url=new, key=server.key) as server, server.client() as room:
        assert await drained(room) == list(range(10))
