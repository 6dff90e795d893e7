"""TaskRunner and LLMTaskRunner on a real room server: what whoever asked is told, whatever the task does."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel, Field

from meshhost.agents import task_runner as module
from meshhost.agents.agent import SingleRoomAgent
from meshhost.agents.context import AgentCallContext
from meshhost.agents.llmrunner import LLMTaskRunner
from meshhost.agents.task_runner import RunTaskTool, TaskRunner
from meshhost.errors import InvalidRequestError, LimitExceededError, LLMError, NotFoundError, RoomError, ToolError
from meshhost.protocol.frames import Limits
from meshhost.protocol.messages import JsonResponse, TextResponse
from meshhost.room.client import RoomClient
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.room.requirements import RequiredToolkit
from meshhost.server.services.agents.service import AgentsService
from meshhost.testing.scripted_llm import ScriptedCall, ScriptedLLM
from meshhost.testing.server import RunningServer
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

ANYTHING: dict[str, Any] = {"type": "object"}
NUMBERS: dict[str, Any] = {
    "type": "object",
    "required": ["a", "b"],
    "additionalProperties": False,
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
}
SUM: dict[str, Any] = {"type": "object", "required": ["sum"], "properties": {"sum": {"type": "integer"}}}

Asked = Callable[[AgentCallContext, Any], Awaitable[Any]]


class Numbers(BaseModel):
    """Two numbers."""

    a: int
    b: int = 1


class Sum(BaseModel):
    """Their sum, under a name that is a keyword here."""

    total: int = Field(alias="sum")


class Runner(TaskRunner):
    """Does what the test says."""

    def __init__(self, do: Asked, **options: Any) -> None:
        super().__init__(**{"name": "adder", "input_schema": ANYTHING} | options)
        self._do = do

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        return await self._do(context, arguments)


class Held:
    """A task that waits for its release; it tells how many are begun, at work and cancelled."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Any] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()
        self.now = self.most = 0

    async def __call__(self, _: AgentCallContext, arguments: Any) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.put_nowait(arguments)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise
        finally:
            self.now -= 1
        return arguments


async def echo(_: AgentCallContext, arguments: Any) -> Any:
    return arguments


async def add(_: AgentCallContext, arguments: Any) -> Any:
    return {"sum": arguments["a"] + arguments["b"]}


@asynccontextmanager
async def running(server: RunningServer, agent: SingleRoomAgent, **options: Any) -> AsyncIterator[RoomClient]:
    """The agent, started in a connection of its own."""
    async with server.client(name=agent.name, role="agent", **options) as room:
        await agent.start(room=room)
        try:
            yield room
        finally:
            await agent.stop()


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client() as room:
        yield room


async def ask(room: RoomClient, arguments: Any = None, **options: Any) -> Any:
    return await room.agents.ask(**{"agent": "adder", "arguments": arguments or {}} | options)


async def error_of(awaitable: Awaitable[Any]) -> RoomError:
    with pytest.raises(RoomError) as caught:
        await awaitable
    return caught.value


# Schemas


async def test_an_agent_describes_itself_and_answers(server: RunningServer, user: RoomClient) -> None:
    agent = Runner(add, title="Adder", description="adds", input_schema=NUMBERS, output_schema=SUM, labels=["math"])
    async with running(server, agent):
        [card] = await user.agents.list_agents()
        assert (card.name, card.title, card.description, card.labels) == ("adder", "Adder", "adds", ["math"])
        assert (card.input_schema, card.output_schema, card.supports_tools) == (NUMBERS, SUM, False)
        assert card.to_json() == agent.to_json()
        assert await ask(user, {"a": 1, "b": 2}) == {"sum": 3}
    with pytest.raises(NotFoundError, match="no agent 'adder'"):
        await ask(user)


@pytest.mark.parametrize(
    ("arguments", "field"), [({"a": 1}, "b: is required"), ({"a": 1, "b": "x"}, "b: expected integer")]
)
async def test_arguments_that_break_the_schema_are_refused_by_their_field(
    server: RunningServer, user: RoomClient, arguments: Any, field: str
) -> None:
    async with running(server, Runner(add, input_schema=NUMBERS)):
        error = await error_of(ask(user, arguments))
    assert isinstance(error, InvalidRequestError)
    assert str(error) == field


async def test_models_are_schemas_both_ways(server: RunningServer, user: RoomClient) -> None:
    async def add_model(_: AgentCallContext, numbers: Any) -> Any:
        assert isinstance(numbers, Numbers)
        return Sum(sum=numbers.a + numbers.b)

    agent = Runner(add_model, input_schema=Numbers, output_schema=Sum)
    async with running(server, agent):
        [card] = await user.agents.list_agents()
        assert card.input_schema == Numbers.model_json_schema()
        assert card.output_schema == Sum.model_json_schema()
        assert await ask(user, {"a": 2}) == {"sum": 3}
        error = await error_of(ask(user, {"a": "many"}))
        assert isinstance(error, InvalidRequestError)
        assert str(error).startswith("a: Input should be a valid integer")


@pytest.mark.parametrize("schema", [SUM, Sum])
async def test_an_answer_that_breaks_its_own_schema_is_the_agents_failure(
    server: RunningServer, user: RoomClient, schema: Any
) -> None:
    async with running(server, Runner(echo, output_schema=schema)):
        assert await ask(user, {"sum": 3}) == {"sum": 3}
        error = await error_of(ask(user, {"total": 3}))
    assert isinstance(error, ToolError)
    assert "agent 'adder' gave an answer that breaks its own schema: sum: " in str(error)


async def test_without_an_output_schema_a_model_is_answered_as_json(server: RunningServer, user: RoomClient) -> None:
    async def add_model(_: AgentCallContext, __: Any) -> Any:
        return Sum(sum=3)

    async with running(server, Runner(add_model)):
        assert await ask(user) == {"sum": 3}


@pytest.mark.parametrize("which", ["input_schema", "output_schema"])
def test_a_schema_that_is_none_is_refused_when_the_agent_is_made(which: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{which} of agent 'adder': type: is not valid in a JSON schema"):
        Runner(echo, **{which: {"type": "nonsense"}})


async def test_a_task_runner_says_what_to_override(server: RunningServer, user: RoomClient) -> None:
    async with running(server, TaskRunner(name="adder", input_schema=ANYTHING)):
        assert "failed; its log says why" in str(await error_of(ask(user)))


# Tools


class Add(Tool):
    """Adds, and tells who called for whom."""

    def __init__(self) -> None:
        super().__init__(name="add", input_schema=NUMBERS)
        self.contexts: list[ToolContext] = []

    async def execute(self, *, context: ToolContext, a: int, b: int) -> dict[str, int]:
        self.contexts.append(context)
        return {"sum": a + b}


async def test_whoever_asks_may_hand_toolkits_along(server: RunningServer, user: RoomClient) -> None:
    tool = Add()
    kit = RemoteToolkit(name="math", tools=[tool], description="numbers", public=False)

    async def use(context: AgentCallContext, _: Any) -> Any:
        [toolkit] = context.toolkits
        tools = ToolContext(room=context.room, caller=context.room.local_participant, on_behalf_of=context.caller)
        answer = await toolkit.execute(context=tools, name="add", arguments={"a": 1, "b": 2})
        assert isinstance(answer, JsonResponse)
        return [toolkit.name, toolkit.description, answer.json]

    await kit.start(room=user)
    requires = [RequiredToolkit(name="math")]
    async with running(server, Runner(use, supports_tools=True)) as room:
        assert await ask(user, requires=requires) == ["math", "numbers", {"sum": 3}]
        agent_id = room.local_participant.id
    context = tool.contexts[0]
    assert (context.caller.id, context.on_behalf_of.id) == (agent_id, user.local_participant.id)

    async def count(context: AgentCallContext, _: Any) -> Any:
        return len(context.toolkits)

    async with running(server, Runner(count)):
        assert await ask(user, requires=requires) == 0


async def test_required_toolkits_are_those_that_whoever_asks_sees(server: RunningServer, user: RoomClient) -> None:
    public, private = Add(), Add()

    async def use(context: AgentCallContext, _: Any) -> Any:
        names = [toolkit.name for toolkit in context.toolkits]
        tools = ToolContext(room=context.room, caller=context.room.local_participant)
        await context.toolkits[1].execute(context=tools, name="add", arguments={"a": 1, "b": 2})
        return names

    own = Toolkit(name="own", tools=[])
    async with (
        server.client(name="p", role="tool") as provider,
        server.client(name="other") as other,
        server.client(name="between", role="agent") as between,
    ):
        await RemoteToolkit(name="math", tools=[public]).start(room=provider)
        await RemoteToolkit(name="math", tools=[private], public=False).start(room=other)
        agent = Runner(use, requires=[RequiredToolkit(name="math", tools=["add"])], toolkits=[own])
        async with running(server, agent):
            assert await ask(user) == ["own", "math"]
            assert (len(public.contexts), len(private.contexts)) == (1, 0)
            await ask(other)
            assert (len(public.contexts), len(private.contexts)) == (1, 1)
            to = RemoteParticipant(id=between.local_participant.id)
            await other.messaging.send_message(to=to, type="chat", message={})
            await ask(between, on_behalf_of=other.local_participant)
            assert (len(public.contexts), len(private.contexts)) == (1, 2)


async def test_the_agent_knows_who_asks_and_for_whom(server: RunningServer, user: RoomClient) -> None:
    seen: list[AgentCallContext] = []

    async def look(context: AgentCallContext, _: Any) -> Any:
        seen.append(context)

    async with running(server, Runner(look)) as room:
        me = user.local_participant.id
        assert await ask(user, on_behalf_of=Participant(id=me)) is None
        await ask(user)
        await user.messaging.enable()
        await room.messaging.enable()
        await ask(user)
    assert [(context.caller.id, context.on_behalf_of and context.on_behalf_of.id) for context in seen if context.caller]
    assert seen[0].caller is not None
    assert (seen[0].caller.id, seen[0].on_behalf_of and seen[0].on_behalf_of.id) == (me, me)
    assert seen[1].on_behalf_of is None
    assert seen[0].chat is not seen[1].chat


@pytest.mark.parametrize("toolkits", [[{"title": "nameless"}], 5, [{"name": "x", "tools": ["y"]}]])
async def test_toolkits_that_cannot_be_read_are_refused(toolkits: Any) -> None:
    with pytest.raises(InvalidRequestError, match="toolkits"):
        module._toolkits_of_ask(toolkits, None)


async def test_an_agent_is_a_tool_of_another_agents_model(server: RunningServer, user: RoomClient) -> None:
    tool = RunTaskTool(name="add", agent_name="adder", input_schema=NUMBERS, rules=["Never add by heart."])
    seen: list[AgentCallContext] = []

    async def add_and_look(context: AgentCallContext, arguments: Any) -> Any:
        seen.append(context)
        return await add(context, arguments) if arguments["a"] else "nothing"

    async def use(call: ScriptedCall) -> Any:
        context = ToolContext(room=call.room, caller=call.room.local_participant, on_behalf_of=call.on_behalf_of)
        [kit] = call.toolkits
        answers = [await kit.execute(context=context, name="add", arguments={"a": a, "b": 2}) for a in (1, 0)]
        assert answers == [JsonResponse(json={"sum": 3}), TextResponse(text="nothing")]
        with pytest.raises(InvalidRequestError, match="b: is required"):
            await kit.execute(context=context, name="add", arguments={"a": 1})
        return "three"

    boss = LLMTaskRunner(name="boss", llm_adapter=ScriptedLLM([use]), toolkits=[Toolkit(name="kit", tools=[tool])])
    async with running(server, Runner(add_and_look, input_schema=NUMBERS)), running(server, boss) as room:
        assert await ask(user, {"prompt": "what is 1 + 2?"}, agent="boss") == "three"
    assert seen[0].caller is not None
    assert seen[0].on_behalf_of is not None
    assert (seen[0].caller.id, seen[0].on_behalf_of.id) == (room.local_participant.id, user.local_participant.id)


# Failures


async def test_a_room_errors_text_reaches_whoever_asked_and_anything_else_does_not(
    server: RunningServer, user: RoomClient, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [NotFoundError("no such thing"), ValueError("a secret"), LLMError("a key")]

    async def fail(_: AgentCallContext, __: Any) -> Any:
        raise errors.pop(0)

    async with running(server, Runner(fail)):
        first, second, third = [await error_of(ask(user)) for _ in range(3)]
    assert isinstance(first, NotFoundError)
    assert str(first) == "no such thing"
    assert isinstance(second, ToolError)
    assert str(second) == str(third) == "agent 'adder' failed; its log says why"
    assert [record.exc_info is not None for record in caplog.records if record.message == "task failed"] == [True, True]


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), BaseException("a panic")])
async def test_what_is_no_exception_fails_its_ask_only(
    server: RunningServer, user: RoomClient, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    raised = [error]

    async def fail(_: AgentCallContext, __: Any) -> Any:
        for each in raised:
            raise each
        return "fine"

    async with running(server, Runner(fail)):
        assert str(await error_of(ask(user))) == "agent 'adder' failed; its log says why"
        assert type(error).__name__ in caplog.text
        raised.clear()
        assert await ask(user) == "fine"


async def test_an_answer_that_no_message_can_carry_is_an_error(serve: Any) -> None:
    answers: list[Any] = ["x" * 300_000, {("a", "tuple"): 1}]

    async def answer(_: AgentCallContext, __: Any) -> Any:
        return answers.pop(0)

    async with serve(wire=Limits(message_bytes=400_000)) as server, server.client() as user:
        agent = Runner(answer)
        async with server.client(name="agent", role="agent", limits=Limits(message_bytes=200_000)) as room:
            await agent.start(room=room)
            error = await error_of(ask(user))
            assert isinstance(error, LimitExceededError)
            assert "at most 200000" in str(error)
            assert "not JSON" in str(await error_of(ask(user)))
            await agent.stop()


async def _never(_: AgentCallContext, __: Any) -> Any:
    raise AssertionError


async def test_a_plain_ask_runs_in_a_thread(server: RunningServer, user: RoomClient) -> None:
    class Plain(Runner):
        def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:  # type: ignore[override]
            return threading.current_thread() is threading.main_thread()

    async with running(server, Plain(_never)):
        assert await ask(user) is False


async def test_a_task_that_cancels_itself_is_answered(server: RunningServer, user: RoomClient) -> None:
    async def give_up(_: AgentCallContext, __: Any) -> Any:
        raise asyncio.CancelledError

    async with running(server, Runner(give_up)):
        assert "agent 'adder' was stopped" in str(await error_of(ask(user)))


async def test_the_model_failing_is_the_agents_failure(server: RunningServer, user: RoomClient) -> None:
    agent = LLMTaskRunner(name="adder", llm_adapter=ScriptedLLM([LLMError("over quota", status=429)]))
    async with running(server, agent):
        assert str(await error_of(ask(user, {"prompt": "x"}))) == "agent 'adder' failed; its log says why"


# Life


async def test_asks_run_side_by_side_up_to_a_number(server: RunningServer, user: RoomClient) -> None:
    held = Held()
    async with running(server, Runner(held, max_concurrent=2)), asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(ask(user, {"n": n})) for n in range(4)]
        first = [await held.begun.get(), await held.begun.get()]
        await user.queues.list()
        assert held.begun.empty()
        held.release.set()
        assert [await task for task in asking] == [{"n": n} for n in range(4)]
    assert (held.most, first) == (2, [{"n": 0}, {"n": 1}])


async def test_a_drained_agent_answers_what_is_under_way_and_takes_no_other(
    server: RunningServer, user: RoomClient
) -> None:
    held, agent = Held(), None
    agent = Runner(held)
    async with running(server, agent), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask(user, {"n": 1}))
        await held.begun.get()
        draining = tasks.create_task(agent.drain())
        while await user.agents.list_agents():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)
        with pytest.raises(NotFoundError):
            await ask(user)
        assert not draining.done()
        held.release.set()
        await draining
        assert await asking == {"n": 1}
        await agent.stop()
        await agent.stop()
        await agent.drain()


async def test_whoever_asked_is_told_when_the_agent_stops(server: RunningServer, user: RoomClient) -> None:
    held = Held()
    agent = Runner(held)
    async with running(server, agent) as room, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(error_of(ask(user)))
        await held.begun.get()
        await agent.stop()
        assert str(await asking) == "agent 'adder' was stopped"
        assert room.is_open
        await agent.start(room=room)
        held.release.set()
        assert await ask(user, {"n": 1}) == {"n": 1}


async def test_whoever_asked_is_told_when_the_agent_leaves(server: RunningServer, user: RoomClient) -> None:
    held = Held()
    agent = Runner(held)
    async with server.client(name="adder", role="agent") as room, asyncio.TaskGroup() as tasks:
        await agent.start(room=room)
        asking = tasks.create_task(error_of(ask(user)))
        await held.begun.get()
        await room.close()
        assert "has left the room" in str(await asking)
        await agent.stop()


async def test_an_agent_is_asked_again_after_a_reconnect(server: RunningServer, user: RoomClient, heard: Any) -> None:
    held = Held()
    at_once = ReconnectPolicy(first_delay=0.0)
    async with running(server, Runner(held), reconnect=at_once) as room, asyncio.TaskGroup() as tasks:
        reconnected = heard(room, "reconnected")
        asking = tasks.create_task(error_of(ask(user)))
        await held.begun.get()
        server.cut(room)
        assert "has left the room" in str(await asking)
        assert await held.ended.get() == "cancelled"  # its answer could reach nobody
        await reconnected.get()
        held.release.set()
        assert await ask(user, {"n": 1}) == {"n": 1}
        assert len(await user.agents.list_agents()) == 1


async def test_of_agents_of_one_name_the_newest_answers_and_the_older_takes_over(
    server: RunningServer, user: RoomClient
) -> None:
    def named(name: str) -> Runner:
        async def tell(_: AgentCallContext, __: Any) -> Any:
            return name

        return Runner(tell)

    async with running(server, named("old")):
        async with running(server, named("new")):
            assert await ask(user) == "new"
            assert len(await user.agents.list_agents()) == 1
        assert await ask(user) == "old"


async def test_a_connection_offers_one_agent(server: RunningServer, user: RoomClient) -> None:
    second = Runner(echo, name="second")
    async with running(server, Runner(echo)) as room:
        with pytest.raises(RoomError, match="offers an agent already"):
            await second.start(room=room)
        with pytest.raises(RoomError, match="not started"):
            second.room  # noqa: B018
        assert await ask(user, {"n": 1}) == {"n": 1}


async def test_an_agent_whose_connection_breaks_while_it_leaves_is_stopped(server: RunningServer) -> None:
    agent = Runner(echo)
    async with running(server, agent, reconnect=ReconnectPolicy(first_delay=60.0)) as room:
        server.cut(room)
        await agent.stop()
        with pytest.raises(RoomError, match="not started"):
            agent.room  # noqa: B018


async def test_an_ask_that_will_not_end_is_logged(
    server: RunningServer, user: RoomClient, caplog: pytest.LogCaptureFixture
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def stubborn(_: AgentCallContext, __: Any) -> Any:
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    agent = Runner(stubborn)
    agent.stop_seconds = 0.05
    async with running(server, agent), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask(user))
        await begun.wait()
        with caplog.at_level(logging.WARNING):
            await agent.stop()
        assert "asks did not end in time" in caplog.messages
        release.set()
        assert await asking == "late"


# Cancelling


async def test_an_ask_is_cancelled_when_whoever_asked_leaves(server: RunningServer) -> None:
    held = Held()
    async with running(server, Runner(held)), server.client(name="leaver") as leaver, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(error_of(ask(leaver)))
        await held.begun.get()
        await leaver.close()
        assert await held.ended.get() == "cancelled"
        await asking


async def test_an_ask_is_cancelled_when_it_is_too_late(serve: Any) -> None:
    held = Held()
    async with serve(call_seconds=0.1) as server, server.client() as user, running(server, Runner(held)):
        assert "agent 'adder' did not answer within 0.1 s" in str(await error_of(ask(user)))
        assert await held.ended.get() == "cancelled"
        held.release.set()
        assert await ask(user, {"n": 1}) == {"n": 1}


async def test_an_ask_is_cancelled_when_whoever_asked_no_longer_waits(server: RunningServer, user: RoomClient) -> None:
    inner, outer = Held(), asyncio.Event()

    async def delegate(context: AgentCallContext, _: Any) -> Any:
        outer.set()
        return await ask(context.room)

    async with running(server, Runner(inner)), running(server, Runner(delegate, name="boss")):
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask(user, agent="boss"))
            await inner.begun.get()
            asking.cancel()
        # Through the chain: boss is cancelled, and with it what it has asked for.
        assert await inner.ended.get() == "cancelled"
        assert not server.server.service(AgentsService).in_room(server.server.rooms[0]).calls


# Models


async def test_a_model_does_the_task_with_rules_and_tools(server: RunningServer, user: RoomClient) -> None:
    llm = ScriptedLLM(["hello"])
    kit = Toolkit(name="kit", tools=[], rules=["Be exact."])
    agent = LLMTaskRunner(name="adder", llm_adapter=llm, rules=["Be brief."], toolkits=[kit])
    async with running(server, agent):
        [card] = await user.agents.list_agents()
        assert card.supports_tools
        assert await ask(user, {"prompt": "say hello"}) == "hello"
        assert isinstance(await error_of(ask(user, {"prompt": 1})), InvalidRequestError)
    [call] = llm.calls
    assert call.context.get_system_instructions() == "- Be brief.\n- Be exact."
    assert call.context.conversation == [{"role": "user", "content": "say hello"}]
    assert call.on_behalf_of.id == user.local_participant.id
    assert call.output_schema is None


@pytest.mark.parametrize("schema", [NUMBERS, Numbers])
async def test_a_model_reads_arguments_as_json_and_answers_by_the_schema(
    server: RunningServer, user: RoomClient, schema: Any
) -> None:
    llm = ScriptedLLM([{"sum": 3}, {"sum": "three"}])
    agent = LLMTaskRunner(name="adder", llm_adapter=llm, input_schema=schema, output_schema=SUM)
    async with running(server, agent):
        assert await ask(user, {"a": 1, "b": 2}) == {"sum": 3}
        assert "breaks its own schema: sum: expected integer" in str(await error_of(ask(user, {"a": 1, "b": 2})))
    assert llm.contexts[0].conversation == [{"role": "user", "content": '{"a": 1, "b": 2}'}]
    assert llm.calls[0].output_schema == SUM


async def test_a_model_may_be_given_nothing(server: RunningServer, user: RoomClient) -> None:
    llm = ScriptedLLM(default="done")
    async with running(server, LLMTaskRunner(name="adder", llm_adapter=llm, input_prompt=False)):
        assert await ask(user) == "done"
        assert isinstance(await error_of(ask(user, {"prompt": "x"})), InvalidRequestError)
