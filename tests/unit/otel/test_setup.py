import logging
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
from aiohttp import web
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

from meshhost.errors import SettingsError
from meshhost.logs import log_context
from meshhost.otel import otel_config

# What the instrumentation of aiohttp does is not ours to change.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class _InstrumentedApplication:DeprecationWarning")


@contextmanager
def handlers(*own):
    """Inside, the root logger has these handlers only: pytest adds its own at the start of each test."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, list(own)
    try:
        yield root.handlers
    finally:
        root.handlers = before


def configure():
    with handlers():
        otel_config(service_name="x")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A process in which nothing is configured yet; afterwards everything is as before."""
    root, level = logging.getLogger(), logging.getLogger().level
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    for name in ("MESHHOST_LOG_LEVEL", "MESHAGENT_LOG_LEVEL", "OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    application = web.Application
    yield
    provider = trace._TRACER_PROVIDER
    if provider is not None:
        provider.shutdown()
    for instrumentor in (AioHttpClientInstrumentor(), AioHttpServerInstrumentor()):
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
    assert web.Application is application
    root.setLevel(level)


def test_logs_and_traces_are_configured_once(monkeypatch, capsys):
    monkeypatch.setenv("MESHHOST_ROOM", "lobby")
    monkeypatch.setenv("MESHHOST_PROJECT_ID", "acme")
    with handlers() as made:
        otel_config(service_name="poet")
        provider = trace.get_tracer_provider()
        otel_config(service_name="another")
        assert len(made) == 1
        with log_context(tenant="t1"):
            logging.getLogger("x").info("hello there")
            logging.getLogger("x").debug("not shown")

    err = capsys.readouterr().err
    assert "hello there" in err
    assert "tenant=t1" in err
    assert "not shown" not in err
    assert isinstance(provider, TracerProvider)
    assert trace.get_tracer_provider() is provider
    attributes = provider.resource.attributes
    assert attributes["service.name"] == "poet"
    assert (attributes["meshhost.room"], attributes["meshhost.project"]) == ("lobby", "acme")
    assert "meshhost.session" not in attributes
    assert not provider._active_span_processor._span_processors


def test_the_level_is_the_environments(monkeypatch):
    monkeypatch.setenv("MESHHOST_LOG_LEVEL", "debug")
    configure()
    assert logging.getLogger().level == logging.DEBUG


def test_a_wrong_level_is_named(monkeypatch):
    monkeypatch.setenv("MESHHOST_LOG_LEVEL", "loud")
    with handlers() as made, pytest.raises(SettingsError, match="MESHHOST_LOG_LEVEL: expected DEBUG, INFO"):
        otel_config(service_name="x")
    assert not made


def test_a_programs_own_logging_is_left_alone():
    own, before = logging.NullHandler(), logging.getLogger().level
    with handlers(own) as kept:
        otel_config(service_name="x")
        assert kept == [own]
    assert logging.getLogger().level == before
    assert own.filters


def test_a_programs_own_tracing_is_left_alone():
    own = TracerProvider()
    trace.set_tracer_provider(own)
    configure()
    assert trace.get_tracer_provider() is own
    assert not AioHttpClientInstrumentor().is_instrumented_by_opentelemetry


@pytest.mark.parametrize("name", ["OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_spans_are_exported_when_a_collector_is_named(monkeypatch, name):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    monkeypatch.setenv(name, "http://127.0.0.1:4318/")
    configure()
    [processor] = trace.get_tracer_provider()._active_span_processor._span_processors
    assert processor.span_exporter._endpoint == "http://127.0.0.1:4318/v1/traces"


def test_a_missing_exporter_is_explained(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.setenv("OTEL_ENDPOINT", "http://127.0.0.1:4318")
    configure()
    assert "pip install 'meshhost[otlp]'" in capsys.readouterr().err
    assert not trace.get_tracer_provider()._active_span_processor._span_processors


def test_a_silent_collector_holds_no_process(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from opentelemetry import trace\n"
        "from meshhost.otel import otel_config\n"
        "otel_config(service_name='x', flush_seconds=0.5)\n"
        "with trace.get_tracer('x').start_as_current_span('a'):\n"
        "    pass\n"
    )
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        # The exporter itself would wait for ten minutes.
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        environment["OTEL_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
