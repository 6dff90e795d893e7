import asyncio

import pytest

from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError, LLMError
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until


async def ask(llm, context=None, **options):
    return await llm.next(context=context or llm.create_chat_context(), room=None, toolkits=[], **options)


async def test_texts_are_said_in_order_and_recorded():
    llm, context, events = ScriptedLLM(["a", "b"]), AgentChatContext(), []
    assert await ask(llm, context, event_handler=events.append) == "a"
    assert await ask(llm, context, model="other") == "b"
    assert [len(seen.messages) for seen in llm.contexts] == [0, 1]
    assert [call.model for call in llm.calls] == ["scripted", "other"]
    assert events == [{"type": "response.output_text.done", "text": "a"}]
    assert await llm.check_for_termination(context=context, room=None)


async def test_callables_dicts_and_exceptions_are_steps():
    async def slow(call):
        return f"model {call.model}"

    llm = ScriptedLLM([{"a": 1}, lambda call: len(call.context.messages), slow, KeyError("x")])
    assert await ask(llm) == {"a": 1}
    assert await ask(llm) == 0
    assert await ask(llm) == "model scripted"
    with pytest.raises(KeyError):
        await ask(llm)


async def test_the_end_of_the_script_is_an_error_unless_there_is_a_default():
    with pytest.raises(LLMError, match="script has ended"):
        await ask(ScriptedLLM())
    assert await ask(ScriptedLLM(default="again")) == "again"


async def test_a_step_waits_for_an_event():
    step = wait_until(asyncio.Event(), then="now")
    llm = ScriptedLLM([step])
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(ask(llm))
        await step.reached.wait()
        assert not answer.done()
        step.event.set()
    assert answer.result() == "now"


async def test_a_wait_ends():
    with pytest.raises(TimeoutError):
        await ask(ScriptedLLM([wait_until(asyncio.Event(), timeout=0.01)]))


def test_answers_are_checked_against_the_schema():
    ScriptedLLM.validate(1, {"type": "integer"})
    with pytest.raises(InvalidRequestError):
        ScriptedLLM.validate("1", {"type": "integer"})
    assert ScriptedLLM().default_model() == "scripted"
    assert "left=0" in repr(ScriptedLLM())
