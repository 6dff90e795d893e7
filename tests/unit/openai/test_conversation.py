import asyncio

import pytest

from meshhost.errors import InvalidRequestError, LLMError, LLMRefusalError, ToolError
from meshhost.openai import OpenAIResponsesAdapter
from meshhost.protocol.messages import ErrorResponse
from meshhost.tools import Tool, Toolkit

STRICT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}
LOOSE = {"type": "object", "properties": {"x": {"type": "integer"}}}


class Function(Tool):
    def __init__(self, run, name="double", schema=STRICT):
        super().__init__(name=name, input_schema=schema)
        self.run = run

    async def execute(self, *, context, **arguments):
        result = self.run(**arguments)
        return await result if asyncio.iscoroutine(result) else result


def kit(run, name="double", schema=STRICT):
    return Toolkit(name="kit", tools=[Function(run, name, schema)])


def outputs(context):
    return {m["call_id"]: m["output"] for m in context.messages if m.get("type") == "function_call_output"}


async def test_a_text_is_returned_and_appended(gateway, ask, context):
    gateway.text("hello")
    context.append_rules(["be kind"])
    assert await ask(context) == "hello"
    assert gateway.requests[0] == {
        "model": "m", "stream": True, "input": [{"role": "user", "content": "hi"}], "instructions": "- be kind",
    }  # fmt: skip
    assert context.messages[-1]["content"][0]["text"] == "hello"


async def test_a_tool_is_called_and_its_result_goes_back(gateway, ask, context):
    gateway.call(("double", {"x": 4}))
    gateway.text("8")
    assert await ask(context, kit(lambda x: str(2 * x))) == "8"
    sent = gateway.requests[1]["input"]
    assert [item.get("type", item.get("role")) for item in sent] == ["user", "function_call", "function_call_output"]
    assert outputs(context) == {"call_1": "8"}


async def test_calls_of_one_turn_run_side_by_side_and_answer_in_order(gateway, ask, context):
    both = asyncio.Barrier(2)
    second = asyncio.Event()
    ends = []

    async def run(x):
        await both.wait()
        await (second.wait() if x == 1 else asyncio.sleep(0))
        ends.append(x)
        second.set()
        return f"r{x}"

    gateway.call(("double", {"x": 1}), ("double", {"x": 2}))
    gateway.text("done")
    async with asyncio.timeout(5):
        await ask(context, kit(run))
    assert ends == [2, 1]
    assert list(outputs(context).items()) == [("call_1", "r1"), ("call_2", "r2")]


@pytest.mark.parametrize(("schema", "strict"), [(STRICT, True), (LOOSE, False)])
async def test_a_schema_is_strict_when_it_qualifies(gateway, ask, context, schema, strict):
    gateway.text("a")
    await ask(context, kit(str, schema=schema))
    (tool,) = gateway.requests[0]["tools"]
    assert (tool["name"], tool["strict"], tool["parameters"]) == ("double", strict, schema)


async def test_a_refusal_is_raised_with_its_reason(gateway, ask, context):
    gateway.refuse("I would rather not")
    with pytest.raises(LLMRefusalError, match=r"^I would rather not$"):
        await ask(context)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (("double", "{not json"), "error: arguments: are not valid JSON"),
        (("double", "[1]"), "error: arguments: must be a JSON object"),
        (("double", {"x": "one"}), "error: x: expected integer"),
        (("double", ""), "error: x: is required"),
        (("triple", {"x": 1}), "error: there is no tool 'triple'; there are: double"),
    ],
)
async def test_a_call_that_makes_no_sense_is_told_to_the_model(gateway, ask, context, call, text):
    gateway.call(call)
    gateway.text("sorry")
    assert await ask(context, kit(str)) == "sorry"
    assert outputs(context) == {"call_1": text}


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("no luck"), "error: ValueError: no luck"), (ToolError("no luck"), "error: no luck")],
)
async def test_a_tool_that_raises_is_told_to_the_model(gateway, ask, context, error, text):
    def run(x):
        if x == 1:
            raise error
        return "fine"

    gateway.call(("double", {"x": 1}), ("double", {"x": 2}))
    gateway.text("ok")
    assert await ask(context, kit(run)) == "ok"
    assert outputs(context) == {"call_1": text, "call_2": "fine"}


async def test_a_tool_adapter_that_raises_does_not_end_the_conversation(gateway, ask, context):
    class Broken:
        async def create_messages(self, **_):
            raise KeyError

    gateway.call(("double", {"x": 1}))
    gateway.text("ok")
    assert await ask(context, kit(str), tool_adapter=Broken()) == "ok"
    assert "could not be shown" in outputs(context)["call_1"]


async def test_a_cancelled_turn_leaves_a_conversation_that_can_go_on(gateway, ask, context):
    reached = asyncio.Event()

    async def run(x):
        if x == 2:
            reached.set()
            await asyncio.Event().wait()
        return "one"

    gateway.call(("double", {"x": 1}), ("double", {"x": 2}))
    gateway.text("where were we")
    async with asyncio.TaskGroup() as group:
        turn = group.create_task(ask(context, kit(run)))
        await reached.wait()
        turn.cancel()
    assert turn.cancelled()
    assert outputs(context) == {
        "call_1": "one",
        "call_2": "error: the call was cancelled; whether it took effect is not known",
    }
    context.append_user_message("go on")
    assert await ask(context, kit(run)) == "where were we"


async def test_a_tool_that_cancels_itself_does_not_cancel_the_turn(gateway, ask, context):
    async def run(x):
        raise asyncio.CancelledError

    gateway.call(("double", {"x": 1}))
    gateway.text("ok")
    assert await ask(context, kit(run)) == "ok"
    assert "cancelled" in outputs(context)["call_1"]


async def test_the_rounds_of_tool_calls_are_limited(gateway, adapter, room, context):
    for _ in range(3):
        gateway.call(("double", {"x": 1}))
    with pytest.raises(LLMError, match="after 2 rounds"):
        await adapter(max_tool_rounds=2).next(context=context, room=room, toolkits=[kit(str)])
    assert len(outputs(context)) == 1
    assert context.messages[-1]["type"] == "function_call_output"


async def test_a_subclass_may_end_the_turn_after_a_tool(gateway, client, room, context):
    class Once(OpenAIResponsesAdapter):
        async def check_for_termination(self, *, context, room):
            return True

    gateway.call(("double", {"x": 1}))
    assert await Once(model="m", client=client).next(context=context, room=room, toolkits=[kit(str)]) == ""


async def test_the_output_schema_is_sent_and_the_answer_parsed(gateway, ask, context):
    gateway.text('{"x": 1}')
    assert await ask(context, output_schema=STRICT) == {"x": 1}
    assert gateway.requests[0]["text"] == {
        "format": {"type": "json_schema", "name": "answer", "schema": STRICT, "strict": True}
    }


@pytest.mark.parametrize("wrong", ["one", '{"x": "1"}'])
async def test_a_wrong_answer_may_be_corrected_once(gateway, ask, context, wrong):
    gateway.text(wrong)
    gateway.text('{"x": 1}')
    assert await ask(context, output_schema=STRICT) == {"x": 1}
    assert "does not fit the schema" in gateway.requests[1]["input"][-1]["content"]


async def test_a_second_wrong_answer_is_an_error(gateway, ask, context):
    gateway.text("one")
    gateway.text('{"x": "1"}')
    with pytest.raises(LLMError, match="twice: x: expected integer"):
        await ask(context, output_schema=STRICT)


async def test_tokens_are_summed_and_reported(gateway, ask, context, room):
    gateway.call(("double", {"x": 1}))
    gateway.text("a", tokens=(20, 3))
    await ask(context, kit(str))
    assert context.usage == {
        "input_tokens": 30, "output_tokens": 5, "total_tokens": 35, "cached_tokens": 8, "reasoning_tokens": 2,
    }  # fmt: skip
    entry = room.developer.logged[0]
    assert entry["type"] == "llm.usage"
    assert (entry["data"]["model"], entry["data"]["input_tokens"]) == ("m", 10)


async def test_a_gateway_that_does_not_count_is_fine(gateway, ask, context):
    gateway.text("a", tokens=None)
    await ask(context)
    assert context.usage == {}


async def test_every_event_is_shown_as_a_dict(gateway, ask, context):
    events = []
    gateway.text("a")
    await ask(context, event_handler=events.append)
    assert [event["type"] for event in events] == ["response.created", "response.completed"]


@pytest.mark.parametrize("error", [ValueError("mine"), TimeoutError("mine")])
async def test_an_error_of_the_event_handler_is_not_swallowed(gateway, ask, context, error):
    def handler(event):
        raise error

    gateway.text("a")
    with pytest.raises(type(error), match="mine"):
        await ask(context, event_handler=handler)
    assert len(gateway.requests) == 1


async def test_options_reach_the_request_and_win(gateway, adapter, room, context):
    gateway.text("{}")
    options = {"temperature": 0, "text": {"verbosity": "low"}, "model": "n"}
    chosen = adapter(parallel_tool_calls=False, reasoning_effort="low", response_options=options)
    context.track_response("resp_0")
    context.append_user_message("more")
    await chosen.next(context=context, room=room, toolkits=[kit(str)], output_schema={"type": "object"}, model="o")
    request = gateway.requests[0]
    assert (request["model"], request["temperature"], request["parallel_tool_calls"]) == ("n", 0, False)
    assert request["reasoning"] == {"effort": "low"}
    assert request["text"]["verbosity"] == "low"
    assert request["text"]["format"]["strict"] is False
    assert request["previous_response_id"] == "resp_0"
    assert request["input"] == [{"role": "user", "content": "more"}]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"status": "incomplete"}, "no reason given"),
        ({"status": "failed", "error": {"code": "invalid_prompt", "message": "secret"}}, "invalid_prompt"),
        ({"status": "failed"}, "the model failed"),
    ],
)
async def test_half_an_answer_is_an_error_but_its_tokens_count(gateway, ask, context, more, text):
    gateway.text("hel", **more)
    with pytest.raises(LLMError, match=text) as caught:
        await ask(context)
    assert "secret" not in str(caught.value)
    assert context.usage["input_tokens"] == 10
    assert len(context.messages) == 1


async def test_error_responses_of_tools_are_marked(gateway, ask, context):
    gateway.call(("double", {"x": 1}))
    gateway.text("ok")
    await ask(context, kit(lambda x: ErrorResponse("no")))
    assert outputs(context) == {"call_1": "error: no"}


async def test_answers_can_be_validated_from_outside():
    with pytest.raises(InvalidRequestError):
        OpenAIResponsesAdapter.validate({"x": "1"}, STRICT)


async def test_the_model_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    assert OpenAIResponsesAdapter().default_model() == "gpt-5.1"
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    assert OpenAIResponsesAdapter().default_model() == "mine"
    assert "mine" in repr(OpenAIResponsesAdapter())
