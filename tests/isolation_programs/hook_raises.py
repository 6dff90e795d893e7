"""A program whose prewarm hook raises."""

import asyncio

import misbehaving

from meshhost.hosting.service_host import ServiceHost

host = ServiceHost()
host.add_path("/Normal", cls=misbehaving.Normal, isolation="process")


@host.prewarm
def load() -> None:
    raise OSError("the weights are gone")


asyncio.run(host.run())
