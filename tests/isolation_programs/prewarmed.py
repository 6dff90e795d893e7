"""Two hosts in one program, with hooks: one on the host, one on the class."""

import asyncio
from pathlib import Path

import misbehaving

from meshhost.hosting.service_host import ServiceHost

warm: list[str] = []
host, other = ServiceHost(), ServiceHost()


@other.path("/other")
class Other(misbehaving.Normal):
    pass


@host.prewarm
def load() -> None:
    warm.append("host")


@host.path("/Prewarmed", isolation="process")
class Prewarmed(misbehaving.Normal):
    @classmethod
    async def prewarm(cls) -> None:
        await asyncio.sleep(0)
        warm.append(cls.__name__)

    async def wait_ended(self) -> None:
        raise RuntimeError(f"{warm} {Path(__file__).name} {__name__}")


async def main() -> None:
    await asyncio.gather(other.run(), host.run())


if __name__ == "__main__":
    asyncio.run(main())
