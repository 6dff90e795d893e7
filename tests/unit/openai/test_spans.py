import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from meshhost.openai.tools import exchange, model_adapter, tool_bundle
from meshhost.tools import Tool, Toolkit
from meshhost.usage import Tally, reporting_to


class Broken(Tool):
    async def execute(self, *, context):
        raise ValueError("secret")


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for module in (exchange, model_adapter, tool_bundle):
        monkeypatch.setattr(module, "tracer", provider.get_tracer("test"))
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    provider.shutdown()


async def test_an_exchange_leaves_spans_with_model_tokens_and_tools(gateway, ask, context, spans):
    gateway.call(("fall", {}))
    gateway.text("ok")
    context.add_usage({"input_tokens": 1000})
    await ask(context, Toolkit(name="kit", tools=[Broken(name="fall", input_schema={"type": "object"})]))
    seen = spans()
    assert seen.keys() == {"llm.next", "llm.turn", "tool.call"}
    assert seen["llm.next"].attributes["llm.input_tokens"] == 20
    assert seen["llm.turn"].attributes["llm.input_tokens"] == 10
    assert seen["llm.turn"].attributes["llm.model"] == "m"
    assert seen["tool.call"].parent.span_id == seen["llm.next"].context.span_id
    assert dict(seen["tool.call"].attributes) == {"tool.name": "fall", "tool.toolkit": "kit"}


async def test_a_tool_that_fails_marks_its_span_without_its_words(gateway, ask, context, spans):
    gateway.call(("fall", {}))
    gateway.text("ok")
    await ask(context, Toolkit(name="kit", tools=[Broken(name="fall", input_schema={"type": "object"})]))
    span = spans()["tool.call"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert not span.events


async def test_tokens_are_reported_to_whoever_runs_the_agent(gateway, ask, context):
    gateway.text("ok")
    tally = Tally()
    with reporting_to(tally):
        await ask(context)
    sums = tally.sums()
    assert (sums.input_tokens, sums.output_tokens) == (context.usage["input_tokens"], context.usage["output_tokens"])
    assert sums.input_tokens == 10
