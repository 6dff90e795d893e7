"""A real pgbouncer in transaction mode in front of a PostgreSQL of the tests: Debian's package (tests/system/packages.txt).

It listens on a socket in its folder only. It runs as another user than root, as it insists on that, and ends with the process
that started it, also when that is killed: a shell ends it when its standard input is closed.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from doubles.postgres import PostgresServer

__all__ = ["pgbouncer_program", "running_pgbouncer"]

_SECONDS = 20.0
_PORT = 6432  # of the socket's name
_CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr =
listen_port = {own_port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 5
server_idle_timeout = 1
max_client_conn = 200
logfile = {folder}/log
pidfile = {folder}/pid
"""


def pgbouncer_program() -> str:
    """Where pgbouncer is; skips the test where it is not installed, in CI that is a failure."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is not None:
        return found
    reason = "pgbouncer is not installed: make system-packages"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running_pgbouncer(server: PostgresServer) -> Iterator[str]:
    """The URL of the server's database through a pgbouncer, which ends when the block is left."""
    program = pgbouncer_program()
    target = conninfo_to_dict(server.url)
    folder = Path(tempfile.mkdtemp(prefix="meshhost-pgbouncer-"))
    try:
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(
                host=target["host"], port=target.get("port") or 5432, user=target["user"], folder=folder, own_port=_PORT
            )
        )
        # The user of the server may enter the folder of its socket.
        user = server.user
        if user is not None:
            owner = pwd.getpwnam(user)
            for path in (folder, configuration):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        process = subprocess.Popen(
            ["sh", "-c", '"$0" -q "$1" & read _; kill $!; wait', program, str(configuration)],
            user=user,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        try:
            url = f"postgresql://{target['user']}@/{target['dbname']}?host={folder}&port={_PORT}"
            _wait(url, folder / "log")
            yield url
        finally:
            process.stdin.close()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > end:
                raise AssertionError(log.read_text()[-1000:] if log.exists() else "pgbouncer did not start") from error
            time.sleep(0.05)
        else:
            return
