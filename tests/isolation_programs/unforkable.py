"""A program that holds, at its host, something that a fork would break: what UNFORKABLE names."""

import asyncio
import os
import subprocess
import tempfile
import threading

import misbehaving

from meshhost.hosting.service_host import ServiceHost

kind = os.environ["UNFORKABLE"]
host = ServiceHost()
host.add_path("/Normal", cls=misbehaving.Normal, isolation="process")
held: list[object] = []

if kind == "thread":
    threading.Thread(target=threading.Event().wait, name="counts sheep", daemon=True).start()
elif kind == "database":
    held.append(tempfile.NamedTemporaryFile())  # noqa: SIM115 - it stays open
elif kind == "process":
    held.append(subprocess.Popen(["sleep", "600"]))


class OtherLoop(asyncio.SelectorEventLoop):
    """Not known."""


async def main() -> None:
    if kind == "task":
        held.append(asyncio.create_task(asyncio.sleep(600), name="counts sheep"))
    await host.run()


with asyncio.Runner(loop_factory=OtherLoop if kind == "loop" else None) as runner:
    runner.run(main())
