"""A host that dials in, with an agent in a process of its own: called over the link, connected by itself, without the key."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from doubles.ports import free_port

from meshhost.app.config_file import ServerFile
from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.testing.server import RunningServer

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, os
from meshhost.agents.worker import Worker
from meshhost.api.services import ServiceHost

host = ServiceHost(name="isolated")

class Tells(Worker):
    def __init__(self):
        super().__init__(queue="asked")
    async def process_message(self, *, message):
        return {"pid": os.getpid(), "key": os.environ.get("MESHHOST_API_KEY")}

host.add_path("/tells", cls=Tells, identity="tells", isolation="process")
asyncio.run(host.run())
"""


async def test_an_agent_in_a_process_is_called_over_the_link_and_does_not_see_its_key(tmp_path: Path) -> None:
    key, port = new_api_key("11111111-2222-3333-4444-555555555555"), free_port()
    options = ServerOptions(
        port=port, data_dir=tmp_path / "data", file=ServerFile(), extra_keys=lambda: [key], links=True
    )
    program = tmp_path / "main.py"
    program.write_text(PROGRAM)
    async with open_room_server(options) as server:
        environment = {
            "PATH": "/usr/bin:/bin",
            "MESHHOST_API_URL": server.url,
            "MESHHOST_ROOM_SERVER": server.url,
            "MESHHOST_API_KEY": encode_api_key(key),
            "MESHHOST_LINK_ROOMS": "room",
            "MESHHOST_CONFIG_DIR": str(tmp_path / "config"),
        }
        host = await asyncio.create_subprocess_exec(
            sys.executable, str(program), env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(50), RunningServer(server, key).client("room") as room:
                told = await room.queues.send("asked", {}, reply=True)
            assert told["pid"] != host.pid
            assert json.dumps(told["key"]) == '""'
        finally:
            host.kill()
            await host.wait()
