"""Run benchmarks: `python -m bench [queues|hosting|room|soak …]`; without a name all but the soak, which takes minutes.

`python -m bench fuzz [seconds] [--seed N]` is none: it attacks a host and fails when that did what it must not.
"""

import argparse
import asyncio
import signal
import sys

from bench import fuzz, hosting, queues, room, soak

BENCHMARKS = {"queues": queues.main, "hosting": hosting.main, "room": room.main, "soak": soak.main}
BY_DEFAULT = ["queues", "hosting", "room"]


def main() -> None:
    """Run those that are named, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, side by side with the MeshAgent SDK."
    )
    parser.add_argument("--seed", type=int, default=fuzz.SEED, help="of the fuzz run (default: %(default)s)")
    parser.add_argument(
        "names", nargs="*", metavar="|".join([*BENCHMARKS, "fuzz [seconds]"]), help=f"default: {' '.join(BY_DEFAULT)}"
    )
    given = parser.parse_args()
    # So that the processes of a benchmark end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = given.names or BY_DEFAULT
    if names[0] == "fuzz" and all(map(str.isdecimal, names[1:])) and len(names) < 3:
        asyncio.run(fuzz.main(*map(float, names[1:]), seed=given.seed))
        return
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    for name in names:
        asyncio.run(BENCHMARKS[name]())


main()
