"""The command line of the benchmarks.

`python -m bench [queues|hosting|room|queue-clients|neighbours|soak|attacks|studio|voice|data …]` runs benchmarks; without a
name three.
`python -m bench queues [--rounds N] [--only TEXT …] [--json]` measures our queues beside task frameworks.
`python -m bench backlog [--sizes N …] [--other-tenant N] [--seconds N] [--only TEXT …] [--json]`: queues with many messages.
`python -m bench compare BASE_DIR [--rounds N]` measures this checkout and another one in turns.
`python -m bench fuzz [seconds] [--seed N]` is not a benchmark: it attacks a host, and fails when the host breaks a rule.
"""

import argparse
import asyncio
import signal
import sys
from functools import partial
from pathlib import Path

from bench import (
    attacks,
    backlog,
    compare,
    data,
    fuzz,
    hosting,
    neighbours,
    queue_clients,
    queues,
    room,
    soak,
    studio,
    voice,
)

BENCHMARKS = {
    "hosting": hosting.main,
    "room": room.main,
    "queue-clients": queue_clients.main,
    "neighbours": neighbours.main,
    "soak": soak.main,
    "attacks": attacks.main,
    "studio": studio.main,
    "voice": voice.main,
    "data": data.main,
}
BY_DEFAULT = ["queues", "hosting", "room"]


def main() -> None:
    """Run what the arguments name, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, side by side with the MeshAgent SDK."
    )
    parser.add_argument("--seed", type=int, default=fuzz.SEED, help="of the fuzz run (default: %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=compare.ROUNDS,
        help="of `compare` (for each checkout) and `queues` (default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", default=[], help="of `queues` and `backlog`: parts of contenders' names")
    parser.add_argument("--json", action="store_true", help="of `queues` and `backlog`: print JSON")
    parser.add_argument("--sizes", nargs="+", type=int, default=backlog.SIZES, help="of `backlog`: queued messages")
    parser.add_argument(
        "--other-tenant", type=int, default=backlog.OTHERS, help="of `backlog`: another tenant's messages"
    )
    parser.add_argument("--seconds", type=float, default=backlog.SECONDS, help="of `backlog`: of churn on PostgreSQL")
    known = "|".join(["queues", "backlog", *BENCHMARKS, "compare BASE_DIR", "fuzz [seconds]"])
    parser.add_argument("names", nargs="*", metavar=known, help=f"default: {' '.join(BY_DEFAULT)}")
    given = parser.parse_args()
    # So that the processes of a benchmark end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = given.names or BY_DEFAULT
    if names[0] == "fuzz" and all(map(str.isdecimal, names[1:])) and len(names) < 3:
        asyncio.run(fuzz.main(*map(float, names[1:]), seed=given.seed))
        return
    if names[0] == "compare":
        if len(names) != 2 or not Path(names[1]).is_dir() or given.rounds < 1:
            parser.error("compare: expected the folder of another checkout, and at least one round")
        asyncio.run(compare.main(Path(names[1]).resolve(), rounds=given.rounds))
        return
    benchmarks = BENCHMARKS | {
        "queues": partial(queues.main, rounds=given.rounds, as_json=given.json, only=given.only),
        "backlog": partial(
            backlog.main,
            sizes=given.sizes,
            others=given.other_tenant,
            seconds=given.seconds,
            only=given.only,
            as_json=given.json,
        ),
    }
    if unknown := [name for name in names if name not in benchmarks]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    for name in names:
        asyncio.run(benchmarks[name]())


main()
