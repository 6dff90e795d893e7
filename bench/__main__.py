"""Run benchmarks: `python -m bench [queues|hosting|room|soak …]`; without a name all but the soak, which takes minutes."""

import argparse
import asyncio
import signal
import sys

from bench import hosting, queues, room, soak

BENCHMARKS = {"queues": queues.main, "hosting": hosting.main, "room": room.main, "soak": soak.main}
BY_DEFAULT = ["queues", "hosting", "room"]


def main() -> None:
    """Run those that are named, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure, side by side with the MeshAgent SDK."
    )
    parser.add_argument("names", nargs="*", metavar="|".join(BENCHMARKS), help=f"default: {' '.join(BY_DEFAULT)}")
    names = parser.parse_args().names or BY_DEFAULT
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    # So that the processes of a benchmark end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in names:
        asyncio.run(BENCHMARKS[name]())


main()
