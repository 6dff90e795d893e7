"""Answers that are shaped differently from OpenAI's, and failures that come inside of answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import LLMError
from meshhost.openai.tools.answer import answer_of
from meshhost.protocol.messages import TextResponse
from meshhost.tools.tool import Tool
from meshhost.tools.toolkit import Toolkit

TEXT = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}


def call(arguments="{}", **ids):
    return {"type": "function_call", "name": "probe", "arguments": arguments, **ids}


class Probe(Tool):
    def __init__(self):
        super().__init__(name="probe", input_schema={"type": "object", "additionalProperties": True})
        self.calls = []

    async def execute(self, *, context, **arguments):
        self.calls.append(arguments)
        return TextResponse(text=f"probed {arguments.get('x', '')}")


def completed(output, **more):
    return {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": output, **more}}


def done(*items):
    return [{"type": "response.output_item.done", "output_index": n, "item": item} for n, item in enumerate(items)]


@pytest.mark.parametrize("output", [[], None, "", {}])
async def test_items_that_only_the_stream_has_count(gateway, ask, context, output):
    probe = Probe()
    gateway.events(*done(call('{"x": "1"}', id="fc_1", call_id="call_1")), completed(output))
    gateway.events(*done(TEXT), completed(output))
    assert await ask(context, Toolkit(name="t", tools=[probe])) == "done"
    assert probe.calls == [{"x": "1"}]
    assert [m.get("type") for m in context.messages[1:]] == ["function_call", "function_call_output", "message"]


async def test_text_that_only_the_deltas_have_counts(gateway, ask, context):
    deltas = [
        {"type": "response.output_text.delta", "item_id": "m", "content_index": 0, "delta": d} for d in ("he", "llo")
    ]
    gateway.events(*deltas, completed(None))
    assert await ask(context) == "hello"


async def test_a_call_that_was_announced_and_filled_counts(gateway, ask, context):
    probe = Probe()
    added = {"type": "response.output_item.added", "output_index": 0, "item": call("", id="f", call_id="c")}
    filled = {
        "type": "response.function_call_arguments.done",
        "output_index": 0,
        "item_id": "f",
        "arguments": '{"x": "2"}',
    }
    gateway.events(added, filled, completed([]))
    gateway.text("ok")
    assert await ask(context, Toolkit(name="t", tools=[probe])) == "ok"
    assert probe.calls == [{"x": "2"}]


@pytest.mark.parametrize(
    "ids", [{}, {"call_id": None}, {"call_id": ""}, {"call_id": "c"}, {"id": "f"}, {"id": "f", "call_id": "c"}]
)
async def test_every_call_gets_an_id_and_an_answer_of_its_own(gateway, ask, context, ids):
    probe = Probe()
    gateway.output([call(f'{{"x": "{n}"}}', **ids) for n in range(3)])
    gateway.text("ok")
    await ask(context, Toolkit(name="t", tools=[probe]))
    assert sorted(each["x"] for each in probe.calls) == ["0", "1", "2"]
    sent = gateway.requests[1]["input"]
    answers = {m["call_id"]: m["output"] for m in sent if m.get("type") == "function_call_output"}
    calls = [m for m in sent if m.get("type") == "function_call"]
    assert [answers[m["call_id"]] for m in calls] == ["probed 0", "probed 1", "probed 2"]
    item_ids = [m["id"] for m in calls if "id" in m]
    assert len(item_ids) == len(set(item_ids))


@pytest.mark.parametrize("output", ["done", TEXT, [{**TEXT, "content": "done"}], [{**TEXT, "content": ["done"]}],
                                    [{"role": "assistant", "content": [{"type": "text", "text": "done"}]}],
                                    [None, 3, TEXT]])  # fmt: skip
async def test_texts_where_lists_are_expected_are_read(gateway, ask, context, output):
    gateway.events(completed(output))
    assert await ask(context) == "done"
    assert isinstance(context.messages[-1]["content"], list)


@pytest.mark.parametrize("arguments", [{"x": "1"}, '{"x": "1"}'])
async def test_arguments_may_be_an_object(gateway, ask, context, arguments):
    probe = Probe()
    gateway.events(completed([call(arguments, call_id="c")]))
    gateway.text("ok")
    await ask(context, Toolkit(name="t", tools=[probe]))
    assert probe.calls == [{"x": "1"}]
    assert gateway.requests[1]["input"][1]["arguments"] == '{"x": "1"}'


@pytest.mark.parametrize(
    "output", [[], None, [THOUGHT], [{**TEXT, "content": []}], [{**TEXT, "content": None}], "  \n"]
)
async def test_an_empty_answer_is_an_error_and_is_not_kept(gateway, ask, context, output):
    gateway.events(completed(output))
    with pytest.raises(LLMError, match="empty answer"):
        await ask(context)
    assert len(context.messages) == 1


@pytest.mark.parametrize("output", [[], [THOUGHT]])
async def test_a_model_may_end_without_a_word_after_its_tools(gateway, ask, context, output):
    gateway.call(("probe", {}))
    gateway.events(completed(output))
    assert await ask(context, Toolkit(name="t", tools=[Probe()])) == ""
    assert context.messages[-1]["type"] == "function_call_output"


async def test_a_tool_of_the_provider_is_an_answer(gateway, ask, context):
    gateway.events(completed([{"type": "image_generation_call", "id": "ig", "status": "completed", "result": "…"}]))
    assert await ask(context) == ""


NAMES = ["type", "content", "text", "call_id", "id", "name", "arguments", "output", "status", "usage", "error"]
LEAVES = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
)


@given(VALUES)
def test_any_json_can_be_read(value):
    answer = answer_of(value)
    json.dumps(answer.items).encode()
    assert isinstance(answer.is_empty, bool)
    assert answer.text() is not None


# Failures inside of answers --------------------------------------------------------------------------------------------------
TEMPORARY = [
    {"code": "overloaded_error"}, {"type": "overloaded_error", "code": None}, {"code": "engine_overloaded"},
    {"code": 429}, {"code": "429"}, {"code": 503}, {"code": "529"}, {"code": None, "message": "Overloaded"},
    {"type": "rate_limit_error", "message": "x"}, {"message": "The server is at capacity, try again later."},
    {"code": "rate_limit_exceeded"}, {"code": "server_error"}, {"code": "internal_error"}, {"code": "RESOURCE_EXHAUSTED"},
]  # fmt: skip
PERMANENT = [
    {"code": "insufficient_quota", "type": "rate_limit_error"}, {"code": 400}, {"code": "invalid_prompt", "message": "retry"},
    {"code": None, "message": "no"}, {"code": "context_length_exceeded"}, {},
]  # fmt: skip


@pytest.mark.parametrize("error", TEMPORARY)
@pytest.mark.parametrize("kind", ["event", "nested", "bare", "failed", "json"])
async def test_overload_and_rate_errors_inside_an_answer_are_tried_again(gateway, ask, context, clock, error, kind):
    error_inside(gateway, error, kind)
    gateway.text("a")
    assert await ask(context) == "a"
    assert len(clock.sleeps) == 1


@pytest.mark.parametrize("error", PERMANENT)
@pytest.mark.parametrize("kind", ["event", "failed", "json"])
async def test_other_errors_inside_an_answer_are_not(gateway, ask, context, clock, error, kind):
    error_inside(gateway, error, kind)
    with pytest.raises(LLMError, match="the model"):
        await ask(context)
    assert clock.sleeps == []


def error_inside(gateway, error, kind):
    error = {"message": "secret", **error}
    match kind:
        case "event":
            gateway.events(
                {**error, "type": "error", "error": None} if "type" not in error else {"type": "error", "error": error}
            )
        case "nested":
            gateway.events({"type": "error", "error": error})
        case "bare":
            gateway.body(f"data: {json.dumps({'error': error})}\n\n", "text/event-stream")
        case "failed":
            gateway.events(
                {"type": "response.failed", "response": {"id": "r", "status": "failed", "output": [], "error": error}}
            )
        case "json":
            gateway.body(json.dumps({"error": error}), "application/json")


async def test_plain_json_instead_of_a_stream_is_an_answer(gateway, ask, context):
    probe, events = Probe(), []
    gateway.body(
        json.dumps(completed([call('{"x": "1"}', call_id="c")])["response"]), "application/json; charset=utf-8"
    )
    gateway.body("\ufeff" + json.dumps(completed([TEXT])["response"]), "application/json")
    assert await ask(context, Toolkit(name="t", tools=[probe]), event_handler=events.append) == "done"
    assert probe.calls == [{"x": "1"}]
    assert [event["type"] for event in events] == ["response.completed"] * 2


async def test_a_stream_under_a_wrong_content_type_is_a_stream(gateway, ask, context):
    gateway.body(
        f"event: response.completed\ndata: {json.dumps(completed([TEXT]))}\n\ndata: [DONE]\n\n", "application/json"
    )
    assert await ask(context) == "done"


@pytest.mark.parametrize(("body", "kind", "text"), [
    ("<!DOCTYPE html><html>secret</html>", "text/html", "web page"), ("<html>", "text/plain", "web page"),
    ('{"choices": []}', "application/json", "not one of the Responses API"),
    ('{"object": "error", "message": "secret", "code": 400}', "application/json", "400"),
    ('{"error": "secret"}', "application/json", "the model failed"),
])  # fmt: skip
async def test_what_is_no_answer_is_named_and_not_tried_again(gateway, ask, context, clock, body, kind, text):
    gateway.body(body, kind)
    with pytest.raises(LLMError, match=text) as caught:
        await ask(context)
    assert clock.sleeps == []
    assert "secret" not in str(caught.value)


async def test_half_a_json_answer_is_asked_for_again(gateway, ask, context, clock):
    gateway.body('{"output": [{"type": "mess', "application/json")
    gateway.text("a")
    assert await ask(context) == "a"
    assert len(clock.sleeps) == 1


async def test_lone_surrogates_are_sent_as_a_replacement(gateway, ask, context, clock):
    class Broken(Probe):
        async def execute(self, *, context, **arguments):
            return TextResponse(text="a file called \ud83d.txt")

    gateway.call(("probe", {}))
    gateway.text("it is \ud83d")
    assert (await ask(context, Toolkit(name="t", tools=[Broken()]))).encode()
    assert gateway.requests[1]["input"][2]["output"] == "a file called \ufffd.txt"
    assert clock.sleeps == []


async def test_a_request_that_cannot_be_sent_is_not_tried_again(gateway, ask, context, clock, httpx_library):
    def step():
        raise httpx_library.LocalProtocolError("Illegal header value b'Bearer secret\\n'")

    gateway.steps.append(step)
    with pytest.raises(LLMError, match="line end") as caught:
        await ask(context)
    assert clock.sleeps == []
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_arguments_that_are_not_json_are_told_to_the_model(gateway, ask, context, number):
    probe = Probe()
    gateway.call(("probe", f'{{"x": {number}}}'))
    gateway.text("ok")
    await ask(context, Toolkit(name="t", tools=[probe]))
    assert probe.calls == []
    assert "not valid JSON" in gateway.requests[1]["input"][2]["output"]


@pytest.mark.parametrize("answer", [{"x": float("nan")}, {"x": {1, 2}}, {(1, 2): 3}, ["list"], 3, b"bytes"])
async def test_a_tool_that_returns_something_else_ends_in_an_answer(gateway, ask, context, answer):
    class Odd(Probe):
        async def execute(self, *, context, **arguments):
            return answer

    gateway.call(("probe", {}))
    gateway.text("ok")
    assert await ask(context, Toolkit(name="t", tools=[Odd()])) == "ok"
    output = gateway.requests[1]["input"][2]["output"]
    assert isinstance(output, str)
    assert "NaN" not in output
