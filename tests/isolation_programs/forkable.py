"""A program that may be forked although it holds a file open for reading, a log level, and an exit function."""

import asyncio
import atexit
import logging
import os
from pathlib import Path

import misbehaving

from meshhost.hosting.service_host import ServiceHost

logging.getLogger().setLevel(logging.DEBUG)
template = os.getpid()
text = Path(__file__).with_suffix(".txt").open("rb", buffering=0)
text.read(6)
host = ServiceHost()


def ended(who: str) -> None:
    with Path(os.environ["ENDED"]).open("a") as file:
        file.write(f"{who}\n")


atexit.register(ended, "template")


@host.path("/Reads", isolation="process")
class Reads(misbehaving.Normal):
    async def wait_ended(self) -> None:
        atexit.register(ended, "child")
        rest = text.read().decode().strip()
        level = logging.getLevelName(logging.getLogger().level)
        raise RuntimeError(f"{rest}, {level}, by {'a child' if os.getpid() != template else 'the template'}")


asyncio.run(host.run())
