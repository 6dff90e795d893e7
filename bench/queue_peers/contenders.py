"""The list of contenders, and the environment in which their libraries are installed at first use.

A contender that cannot run here (no Redis, no network for its libraries) is left out, and the report says why.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.queue_peers import brokers
from bench.sdk import environment

PROGRAMS = Path(__file__).parent / "programs"
# One environment for all; those of Redis and of PostgreSQL do not disagree.
PACKAGES = [
    "dramatiq[redis]==2.2.1",
    "huey==3.5.4",
    "procrastinate==3.10.0",
    "pgqueuer==1.6.0",
    "asyncpg==0.32.0",
    "psycopg[binary,pool]==3.3.9",
    "streaq==7.2.0",
]


@dataclass(frozen=True)
class Contender:
    """A queue to measure. `engine` is what it keeps messages in; only `is_framework` is compared with ours.

    `has_batches` and `most_per_second` (a guess, which sizes its work) spare time; `remark` is printed below the tables.
    """

    name: str
    program: str
    broker: brokers.Broker
    engine: str
    is_ours: bool = False
    is_framework: bool = True
    has_batches: bool = True
    most_per_second: int = 10_000
    remark: str = ""


OURS_SQLITE = "meshhost, SQLite"
OURS_POSTGRES = "meshhost, PG"

CONTENDERS = [
    Contender(OURS_SQLITE, "meshhost_room.py", brokers.room_on_sqlite, "sqlite", is_ours=True, is_framework=False),
    Contender(
        OURS_POSTGRES, "meshhost_room.py", brokers.room_on_postgres, "postgres", is_ours=True, is_framework=False
    ),
    Contender("Dramatiq, Redis", "peer_dramatiq.py", brokers.redis, "redis", has_batches=False, most_per_second=2000),
    Contender(
        "Huey, SQLite *",
        "peer_huey.py",
        brokers.sqlite_file,
        "sqlite",
        has_batches=False,
        most_per_second=2000,
        remark="* Huey deletes a task before it runs it: at most once, where all others are at least once.",
    ),
    Contender("Procrastinate, PG", "peer_procrastinate.py", brokers.postgres, "postgres", most_per_second=400),
    Contender("PGQueuer, PG", "peer_pgqueuer.py", brokers.postgres, "postgres"),
    Contender("streaQ, Redis", "peer_streaq.py", brokers.redis, "redis"),
    Contender("Redis stream (floor)", "peer_stream.py", brokers.redis, "redis", is_framework=False),
]


@dataclass(frozen=True)
class Available:
    """The contenders that can run here, the interpreter of the others' libraries, and why others cannot."""

    contenders: list[Contender]
    python: Path
    why_not: list[str]

    def python_of(self, contender: Contender) -> str:
        """The interpreter for its program."""
        return sys.executable if contender.is_ours else str(self.python)


def available(only: Sequence[str] = ()) -> Available:
    """Find out which contenders can run here; makes the environment of the libraries at first use.

    `only` chooses by parts of their names; without it all are looked at.
    """
    found = [each for each in CONTENDERS if not only or any(text.casefold() in each.name.casefold() for text in only)]
    why_not: list[str] = []
    python = Path(sys.executable)
    try:
        if not all(each.is_ours for each in found):
            python = environment("queue-peers", PACKAGES, sys.executable)
    except (OSError, subprocess.SubprocessError) as error:
        why_not.append(f"the libraries of the others cannot be installed: {error}")
        found = [each for each in found if each.is_ours]
    if not brokers.has_redis():
        without = [each.name for each in found if each.engine == "redis"]
        found = [each for each in found if each.engine != "redis"]
        if without:
            why_not.append(f"no redis-server here (apt-get install redis-server), so without: {'; '.join(without)}")
    return Available(found, python, why_not)
