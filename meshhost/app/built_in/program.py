"""The program that serves the built-in agents: a service host on a free port of this machine.

Its parent writes one line of JSON on stdin (`process.py`): the secret of calls, the room server's address, limits. It answers
with one line on stdout, the port. It ends when stdin ends, so it cannot outlive the room server, and by itself when no agent
lives any more for a while. The room server starts it again when one is wanted.
"""

import asyncio
import json
import logging
import secrets
import sys
from typing import Any

from meshhost.app.built_in.agents import paths
from meshhost.hosting.service_host import ServiceHost
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.logs import configure_logs
from meshhost.settings import read_settings
from meshhost.signals import stop_signals
from meshhost.supervision.policy import RestartPolicy
from meshhost.tasks import first_of

__all__ = ["main"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


def main() -> None:
    """Serve until stdin ends, a signal comes, or nobody needs an agent any more."""
    settings = read_settings()
    configure_logs(settings.log_level_number, is_json=settings.log_format == "json")
    asyncio.run(_serve(json.loads(sys.stdin.readline())))


async def _serve(options: dict[str, Any]) -> None:
    host = ServiceHost(
        host="127.0.0.1",
        port=0,
        name="built-in",
        webhook_secret=options["secret"],
        allowed_room_urls=[options["room_server"]],
        max_agents=options["max_agents"],
        default_quota=TenantQuota(max_agents=options["max_agents_per_tenant"]),
        drain_seconds=10.0,
        ledger="",
        admin_key=secrets.token_urlsafe(32),
        health_port=0,
    )
    for path, made in paths(idle_seconds=options["idle_seconds"]).items():
        # An agent that was idle has ended for good; one that crashed comes back, a few times.
        host.add_path(path, cls=made, restart=RestartPolicy(kind="transient"))
    async with stop_signals() as signals:
        await host.start()
        sys.stdout.write(f"{json.dumps({'port': host.port})}\n")
        sys.stdout.flush()
        try:
            await first_of(signals.wait(), first_of(_parent_ended(), _unused(host, options["idle_seconds"])))
        finally:
            await host.stop()


async def _parent_ended() -> None:
    """Return when stdin ends. Without a thread, which would hold the end of this process back."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _unused(host: ServiceHost, seconds: float) -> None:
    """Return when no agent has lived for this time."""
    loop = asyncio.get_running_loop()
    last = loop.time()
    while loop.time() - last < seconds:
        if host.agents:
            last = loop.time()
        await asyncio.sleep(min(_LOOK_SECONDS, seconds))
    logger.info("no built-in agent is needed")


if __name__ == "__main__":
    main()
