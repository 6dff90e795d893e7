"""A program with a path for each class of `misbehaving`, as users write theirs."""

import asyncio
import os
import sys
from pathlib import Path

import misbehaving

from meshhost.hosting.service_host import ServiceHost

host = ServiceHost()
for cls in misbehaving.ALL:
    host.add_path(f"/{cls.__name__}", cls=cls, identity="agent", isolation="process")

if len(sys.argv) > 1:
    marker = Path(sys.argv[1])
    written = marker.with_suffix(f".{os.getpid()}")
    written.write_text(str(os.getpid()))
    written.replace(marker)

asyncio.run(host.run())
