"""`kill -9` between every two statements of a send and of an ack: a restart finds it done or not done, and needs no hand."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.fault_points import Found

from meshhost.stores.postgres.upkeep import PostgresUpkeep
from meshhost.stores.sqlite.upkeep.upkeep import SqliteUpkeep
from meshhost.stores.upkeep import Upkeep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TESTS = Path(__file__).parents[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def place(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> str:
    if engine == "sqlite":
        return str(tmp_path / "queues.db")
    return str(request.getfixturevalue("postgres_server").new_database())


async def test_a_send_and_an_ack_are_done_or_not_done_wherever_the_process_is_killed(
    engine: str, place: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "doubles.fault_points", engine, place]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [Found(**json.loads(line)) for line in done.stdout.splitlines()]

    for operation, undone, finished in (
        ("send", [], ["ready"]),
        ("ack", ["leased", "blocked"], ["done", "ready"]),
    ):
        of_it = [one for one in found if one.operation == operation]
        *killed, whole = of_it
        assert len(killed) > 2  # it has statements
        assert all(one.is_killed and not one.is_accepted for one in killed)
        assert (whole.is_killed, whole.is_accepted, whole.states) == (False, True, finished)
        assert killed[0].states == finished  # killed when all was committed, and nobody was told
        for one in of_it:
            assert one.states in (undone, finished), one
            # Whoever was not told does it again: a message is stored once, and settled once.
            assert one.again == ("sent" if operation == "send" else "acked" if one.states == undone else "lost"), one
            assert one.states_at_last == finished, one
    upkeep: Upkeep = PostgresUpkeep(place) if engine == "postgresql" else SqliteUpkeep(tmp_path)
    assert (await upkeep.look()).problem is None
