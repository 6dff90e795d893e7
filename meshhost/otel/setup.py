"""`otel_config`: sets up logging and tracing of a process, as MeshAgent programs expect from `meshagent.otel`.

A program calls it once before it starts a host or an agent. It changes global state (the root logger, the tracer provider,
the instrumentation of aiohttp), so libraries must not call it; a second call changes nothing.

Spans are sent by a background thread. Telemetry never holds a process: at its end, what is left is sent for at most
`flush_seconds`, and then dropped, also when the collector accepts connections and says nothing.
"""

import atexit
import logging
import os
import sys
import threading

from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from meshhost.logs import add_context_to_root_handlers, log_handler
from meshhost.settings import Settings, read_settings

__all__ = ["FLUSH_SECONDS", "otel_config"]

FLUSH_SECONDS = 3.0
"""Seconds that the last spans of a process may take, by default."""

logger = logging.getLogger(__name__)


def otel_config(
    *, service_name: str = "meshhost-service", level: int | None = None, flush_seconds: float = FLUSH_SECONDS
) -> None:
    """Configure logging and tracing of this process; call it once, early. Further calls change nothing.

    Logs go to stderr at `level`, else MESHHOST_LOG_LEVEL (default INFO), in MESHHOST_LOG_FORMAT (default text), each record
    with its tenant, room and agent. Spans are always created, so that a trace runs through queues and tools; they are exported
    when OTEL_ENDPOINT (or OTEL_EXPORTER_OTLP_ENDPOINT) is the base URL of an OTLP collector. `service_name` marks the spans.
    The end of the process waits at most `flush_seconds` for the last ones. Raises SettingsError.
    """
    settings = read_settings()
    _configure_logging(settings, level)
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    # Its own flush at exit has no limit: a silent collector would hold the process for 10 s and more.
    provider = TracerProvider(resource=Resource.create(_attributes(service_name, settings)), shutdown_on_exit=False)
    if settings.otel_endpoint is not None:
        _export(provider, settings.otel_endpoint, flush_seconds)
    trace.set_tracer_provider(provider)
    AioHttpClientInstrumentor().instrument()
    AioHttpServerInstrumentor().instrument()


def _configure_logging(settings: Settings, level: int | None) -> None:
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(log_handler(sys.stderr, is_json=settings.log_format == "json", tracebacks=True))
        root.setLevel(settings.log_level_number if level is None else level)
    add_context_to_root_handlers()


def _attributes(service_name: str, settings: Settings) -> dict[str, str]:
    attributes = {"service.name": service_name, "process.pid": str(os.getpid())}
    for name, value in (("room", settings.room), ("project", settings.project_id), ("session", settings.session_id)):
        if value is not None:
            attributes[f"meshhost.{name}"] = value
    return attributes


def _export(provider: TracerProvider, endpoint: str, flush_seconds: float) -> None:
    # Imported here: the exporter is slow to load, and most programs export nothing.
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        logger.warning("OTEL_ENDPOINT is set, but traces are not exported: pip install 'meshhost[otlp]'")
        return

    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    atexit.register(_Flush(provider, flush_seconds))


class _Flush:
    """Shuts the provider down, in a thread that the caller waits for no longer than `seconds`.

    The thread is made early and waits: Python 3.12 starts none when the interpreter is about to end. A forked process has no
    threads of its parent and makes its own.
    """

    def __init__(self, provider: TracerProvider, seconds: float) -> None:
        self._provider = provider
        self._seconds = seconds
        self._start()
        os.register_at_fork(after_in_child=self._start)

    def __call__(self) -> None:
        self._wanted.set()
        if not self._done.wait(self._seconds):
            logger.info("the last traces were not sent: the collector did not answer in time")

    def _start(self) -> None:
        self._wanted, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="otel flush", daemon=True).start()

    def _run(self) -> None:
        wanted, done = self._wanted, self._done
        wanted.wait()
        self._provider.shutdown()
        done.set()
