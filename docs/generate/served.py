"""What the two servers really serve: their HTTP routes and their metrics, read from running servers.

A room server and a service host are started on free ports of this machine, with their data in a temporary directory, and
stopped again. While they start, every aiohttp application that is run and every Prometheus collector that is registered is
noted. Reading them there, and not from our own private attributes, means that a route or a metric cannot be missed because
it moved to another module. The reference pages for REST and for metrics are made from the result.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from meshhost.api.services import ServiceHost
from meshhost.testing.server import running_server

__all__ = ["MetricFamily", "Server", "look_at_servers"]

Route = tuple[str, str]
"""Method (`*` for all) and path, as aiohttp writes it."""


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric: its name as Prometheus shows it, its kind, its help text and its labels."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]


@dataclass(slots=True)
class Server:
    """The routes and the metrics of one server, in the order in which they were added."""

    routes: list[Route] = field(default_factory=list)
    metrics: list[MetricFamily] = field(default_factory=list)


class _Agent:
    async def start(self, *, room: Any) -> None: ...

    async def stop(self) -> None: ...


async def look_at_servers() -> dict[str, Server]:
    """What `room-server` and `service-host` serve."""
    with tempfile.TemporaryDirectory() as directory:
        with _noted() as room_server:
            async with running_server(Path(directory)):
                pass
        with _noted() as service_host:
            host = ServiceHost(port=0, ledger="", health_port=0)
            host.add_path("/worker", cls=_Agent, identity="worker")
            await host.start()
            await host.stop()
    return {"room-server": room_server, "service-host": service_host}


@contextmanager
def _noted() -> Iterator[Server]:
    server = Server()
    collectors: list[Collector] = []
    make_runner, register = web.AppRunner.__init__, CollectorRegistry.register

    def note_application(runner: web.AppRunner, app: web.Application, **options: Any) -> None:
        server.routes += _routes(app)
        make_runner(runner, app, **options)

    def note_collector(registry: CollectorRegistry, collector: Collector) -> None:
        collectors.append(collector)
        register(registry, collector)

    with (
        patch.object(web.AppRunner, "__init__", note_application),
        patch.object(CollectorRegistry, "register", note_collector),
    ):
        yield server
    server.metrics += [_family(collector, family) for collector in collectors for family in collector.collect()]


def _routes(app: web.Application) -> list[Route]:
    # aiohttp adds a HEAD route beside each GET route.
    return [
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    ]


def _family(collector: Collector, family: Metric) -> MetricFamily:
    # Families of prometheus_client know their labels only by this attribute.
    labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", None) or ()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return MetricFamily(name, family.type, family.documentation, tuple(labels))
