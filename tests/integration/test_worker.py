"""Workers on a real room server: what becomes of a message, whatever its processing does."""

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshhost.agents.agent import Agent, SingleRoomAgent
from meshhost.agents.worker import Worker
from meshhost.app import embedded
from meshhost.app.config_file import ServerFile
from meshhost.backoff import Backoff
from meshhost.errors import (
    AccessDeniedError,
    ConnectionLostError,
    InvalidRequestError,
    NotFoundError,
    RoomError,
)
from meshhost.hosting.service_host import ServiceHost
from meshhost.protocol.messages import TextResponse
from meshhost.queues.over_engine import queue_service
from meshhost.room.client import RoomClient
from meshhost.room.consuming import QueueConsumer
from meshhost.room.requirements import RequiredSchema, RequiredToolkit
from meshhost.room.services.queues import LeasedMessage, Queue
from meshhost.tasks import TaskOwner
from meshhost.testing.agents import QuietAgent
from meshhost.testing.scripted_llm import ScriptedLLM, wait_until
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit


async def soon(awaitable: Awaitable[Any], seconds: float = 15.0) -> Any:
    """What is awaited here comes soon, or the test fails."""
    async with asyncio.timeout(seconds):
        return await awaitable


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`serve(…)`: a room server whose messages have two attempts; `retry_in` seconds apart."""

    @asynccontextmanager
    async def make(*, retry_in: float = 0.0, **tables: Any) -> AsyncIterator[RunningServer]:
        retry = Backoff(first_delay=retry_in, max_delay=retry_in)
        monkeypatch.setattr(
            embedded, "queue_service", functools.partial(queue_service, retry=retry, random=lambda: 1.0)
        )
        file = ServerFile.model_validate({"queues": {"max_attempts": 2}} | tables)
        async with running_server(tmp_path / "data", file=file) as running:
            yield running

    return make


@pytest.fixture
async def server(serve: Callable[..., Any]) -> AsyncIterator[RunningServer]:
    async with serve() as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client("room") as room:
        yield room


@asynccontextmanager
async def working(server: RunningServer, *workers: SingleRoomAgent) -> AsyncIterator[RoomClient]:
    """These workers at work, each in a connection of its own; gives the last one's."""
    async with AsyncExitStack() as stack:
        for worker in workers:
            room = await stack.enter_async_context(server.client("room", name=worker.name, role="agent"))
            await worker.start(room=room)
            stack.push_async_callback(worker.stop)
        yield room


async def settled(user: RoomClient) -> Queue:
    """The queue `jobs` when nothing in it waits or is worked on."""

    async with asyncio.timeout(15):
        while True:
            [queue] = await user.queues.list()
            if not queue.ready and not queue.leased:
                return queue
            await asyncio.sleep(0.01)  # no event tells of a settled message


def make_worker(llm: ScriptedLLM | None = None, cls: type[Worker] = Worker, **options: Any) -> Worker:
    return cls(**{"queue": "jobs", "name": "worker", "llm_adapter": llm or ScriptedLLM()} | options)


class Add(Tool):
    """Adds two numbers."""

    def __init__(self) -> None:
        number = {"type": "integer"}
        super().__init__(
            name="add",
            rules=["Never add by heart."],
            input_schema={
                "type": "object",
                "required": ["a", "b"],
                "additionalProperties": False,
                "properties": {"a": number, "b": number},
            },
        )

    async def execute(self, *, context: ToolContext, a: int, b: int) -> str:
        return f"{a + b} for {context.caller.id}"


# Processing


async def test_a_worker_with_its_own_process_message_needs_no_model(server: RunningServer, user: RoomClient) -> None:
    class Adder(Worker):
        def __init__(self) -> None:
            super().__init__(queue="jobs", name="adder", rules=["Be exact."], toolkits=[Toolkit(name="none", tools=[])])

        async def process_message(self, *, message: Any, room: RoomClient, **_: Any) -> None:
            await room.storage.upload(path="sum.txt", data=str(sum(message["numbers"])).encode())

    await user.queues.send(name="jobs", message={"numbers": [1, 2]})
    async with working(server, Adder()):
        await settled(user)
    assert (await user.storage.download(path="sum.txt")).data == b"3"


def test_a_worker_without_a_model_and_without_its_own_process_message_is_refused_when_it_is_made() -> None:
    with pytest.raises(
        InvalidRequestError, match=r"worker 'w' has no model: pass llm_adapter=…, or override process_message"
    ):
        Worker(queue="jobs", name="w")


async def test_asking_for_the_model_that_a_worker_does_not_have_dead_letters_with_the_reason(
    server: RunningServer, user: RoomClient
) -> None:
    class Asking(Worker):
        async def process_message(self, **arguments: Any) -> Any:
            return await super().process_message(**arguments)

    await user.queues.send(name="jobs", message="hello")
    async with working(server, Asking(queue="jobs", name="asking")):
        await settled(user)
    [dead] = await user.queues.dead(name="jobs")
    assert "worker 'asking' has no model" in dead.reason


async def test_messages_are_processed_in_order_with_rules_and_tools_and_acked(
    server: RunningServer, user: RoomClient
) -> None:
    last = asyncio.Event()

    def finish(_: Any) -> str:
        last.set()
        return "second"

    llm = ScriptedLLM(["first", finish])
    kit = Toolkit(name="math", tools=[Add()], rules=["Be exact."])
    await user.queues.send(name="jobs", message={"n": 1, "text": "größer"})
    await user.queues.send(name="jobs", message="two")
    async with working(server, make_worker(llm, rules=["Be brief."], toolkits=[kit])):
        await soon(last.wait())
        queue = await settled(user)

    assert (queue.size, queue.dead) == (0, 0)
    assert [context.conversation for context in llm.contexts] == [
        [{"role": "user", "content": '{"n": 1, "text": "größer"}'}],
        [{"role": "user", "content": '"two"'}],
    ]
    rules = "- Be brief.\n- Be exact.\n- Never add by heart."
    assert [context.get_system_instructions() for context in llm.contexts] == [rules, rules]
    assert [call.toolkits for call in llm.calls] == [(kit,), (kit,)]
    assert llm.calls[0].room.local_participant.get_attribute("name") == "worker"


async def test_a_message_whose_processing_raises_is_dead_lettered_after_its_last_attempt(
    server: RunningServer, user: RoomClient
) -> None:
    llm = ScriptedLLM([RuntimeError("out of ideas"), RuntimeError("still out of ideas"), "fine"])
    async with working(server, make_worker(llm)):
        await user.queues.send(name="jobs", message={"n": 1})
        await user.queues.send(name="jobs", message={"n": 2})
        queue = await settled(user)
        [letter] = await user.queues.dead(name="jobs")

    assert (queue.size, queue.dead, len(llm.calls)) == (0, 1, 3)
    assert letter.attempts == 2
    assert "RuntimeError: still out of ideas" in letter.reason
    assert "Traceback (most recent call last)" in letter.reason
    assert "in process_message" in letter.reason


async def test_a_failed_message_waits_before_its_next_attempt(serve: Callable[..., Any]) -> None:
    async with serve(retry_in=60.0) as server, server.client("room") as user:
        llm = ScriptedLLM([RuntimeError("no")])
        async with working(server, make_worker(llm)):
            await user.queues.send(name="jobs", message=1)
            queue = await settled(user)
        assert (queue.delayed, queue.dead, len(llm.calls)) == (1, 0, 1)


@pytest.mark.parametrize("takes_room", [True, False, None])
async def test_hooks_are_called_with_what_they_take(
    server: RunningServer, user: RoomClient, takes_room: bool | None
) -> None:
    seen: list[tuple[str, Any]] = []
    done = asyncio.Event()

    class WithRoom(Worker):
        async def process_message(self, *, chat_context, room, message, toolkits):  # type: ignore[no-untyped-def]
            seen.append(("process", room))
            answer = await super().process_message(
                chat_context=chat_context, room=room, message=message, toolkits=toolkits
            )
            done.set()
            return answer

        async def append_message_context(self, *, message, chat_context, room):  # type: ignore[no-untyped-def,override]
            seen.append(("append", room))
            chat_context.append_user_message("own words")

    class WithoutRoom(Worker):
        async def process_message(self, *, chat_context, message, toolkits):  # type: ignore[no-untyped-def,override]
            seen.append(("process", None))
            await super().process_message(chat_context=chat_context, message=message, toolkits=toolkits)
            done.set()

        async def append_message_context(self, *, message, chat_context):  # type: ignore[no-untyped-def]
            seen.append(("append", None))
            chat_context.append_user_message("own words")

    class Anything(Worker):
        async def process_message(self, **arguments):  # type: ignore[no-untyped-def]
            seen.append(("process", arguments["room"]))
            await super().process_message(**arguments)
            done.set()

        async def append_message_context(self, **arguments):  # type: ignore[no-untyped-def]
            seen.append(("append", arguments["room"]))
            arguments["chat_context"].append_user_message("own words")

    cls = {True: WithRoom, False: WithoutRoom, None: Anything}[takes_room]
    llm = ScriptedLLM(default="ok")
    async with working(server, make_worker(llm, cls)) as room:
        await user.queues.send(name="jobs", message=1)
        await soon(done.wait())
        queue = await settled(user)
    expected = None if takes_room is False else room
    assert seen == [("process", expected), ("append", expected)]
    assert llm.contexts[0].conversation == [{"role": "user", "content": "own words"}]
    assert (queue.size, queue.dead) == (0, 0)


async def test_a_plain_process_message_runs_once_and_holds_up_nobody(server: RunningServer, user: RoomClient) -> None:
    done: list[Any] = []

    class Plain(Worker):
        def process_message(self, *, message: Any, **_: Any) -> None:  # type: ignore[override]
            time.sleep(0.05)  # as code that knows no event loop does
            done.append((message, threading.current_thread() is threading.main_thread()))

    async with working(server, make_worker(cls=Plain)):
        await user.queues.send(name="jobs", message=1)
        while not done:  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)
        queue = await settled(user)
    assert done == [(1, False)]
    assert (queue.size, queue.dead) == (0, 0)


async def test_a_message_is_decoded_before_it_is_processed_and_one_that_cannot_be_is_dead_lettered(
    server: RunningServer, user: RoomClient
) -> None:
    class Strict(Worker):
        def decode_message(self, message: Any) -> Any:
            if not isinstance(message, dict):
                raise InvalidRequestError("message", "expected an object")
            return {"decoded": message}

    llm = ScriptedLLM(default="ok")
    async with working(server, make_worker(llm, Strict)):
        await user.queues.send(name="jobs", message="nonsense")
        await user.queues.send(name="jobs", message={"a": 1})
        await settled(user)
        [letter] = await user.queues.dead(name="jobs")
    assert (letter.message, letter.attempts) == ("nonsense", 2)
    assert "message: expected an object" in letter.reason
    assert [context.conversation[0]["content"] for context in llm.contexts] == ['{"decoded": {"a": 1}}']


# Stopping


async def test_a_message_in_work_comes_back_at_once_when_the_worker_is_stopped(
    server: RunningServer, user: RoomClient
) -> None:
    step = wait_until(asyncio.Event())
    worker = make_worker(ScriptedLLM([step]))
    async with working(server, worker):
        await user.queues.send(name="jobs", message="work")
        await soon(step.reached.wait())
        await worker.stop()
        await worker.stop()
        again = await soon(user.queues.lease(name="jobs", wait=False))
    assert (again.message, again.attempt, again.delivery) == ("work", 1, 2)


async def test_a_drained_worker_finishes_its_message_and_takes_no_other(
    server: RunningServer, user: RoomClient
) -> None:
    finish = asyncio.Event()
    step = wait_until(finish)
    llm = ScriptedLLM([step])
    worker = make_worker(llm)
    async with working(server, worker), asyncio.TaskGroup() as tasks:
        await user.queues.send(name="jobs", message=1)
        await user.queues.send(name="jobs", message=2)
        await soon(step.reached.wait())
        draining = tasks.create_task(worker.drain())
        finish.set()
        await soon(draining)
        await soon(worker.wait_ended())
        [queue] = await user.queues.list()
    assert (queue.ready, queue.leased, len(llm.calls)) == (1, 0, 1)


async def test_a_worker_ends_with_its_room(server: RunningServer) -> None:
    worker = make_worker()
    async with working(server, worker):
        server.server.parts.directory.end(server.server.rooms[0])
        with pytest.raises(ConnectionLostError):
            await soon(worker.wait_ended())


async def test_the_lease_of_long_work_is_renewed(
    server: RunningServer, user: RoomClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_seconds, renewed, renewals = 0.3, asyncio.Event(), []
    extend = LeasedMessage.extend

    async def counted(self: LeasedMessage, **options: Any) -> None:
        await extend(self, **options)
        renewals.append(asyncio.get_running_loop().time())
        if len(renewals) == 5:  # they come at every third of the lease: it would be over by now
            renewed.set()

    monkeypatch.setattr(LeasedMessage, "extend", counted)
    attempts: list[int] = []

    async def process(leased: LeasedMessage) -> None:
        attempts.append(leased.delivery)
        await soon(renewed.wait())
        consumer.drain()

    await user.queues.send(name="jobs", message=1)
    async with server.client("room", name="worker", role="agent") as room:
        began = asyncio.get_running_loop().time()
        consumer = QueueConsumer(room=room, queue="jobs", process=process, lease_seconds=lease_seconds)
        await soon(consumer.run())
        [queue] = await user.queues.list()
    assert renewals[-1] - began > lease_seconds
    assert attempts == [1]
    assert (queue.size, queue.leased, queue.dead) == (0, 0, 0)


# Life


@pytest.mark.parametrize("queue", [None, ""])
def test_a_worker_without_a_queue_is_refused(queue: str | None) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"queue: a Worker needs the name of a queue \(is WORKER_QUEUE set\?\)"
    ):
        make_worker(queue=queue)


async def test_a_worker_that_is_not_started_says_so() -> None:
    worker = make_worker()
    with pytest.raises(RoomError, match="agent 'worker' is not started"):
        worker.room  # noqa: B018
    with pytest.raises(RoomError, match="worker 'worker' is not started"):
        await worker.run(room=None)  # type: ignore[arg-type]
    await worker.drain()
    await worker.stop()


async def test_a_worker_is_started_once(server: RunningServer) -> None:
    worker = make_worker()
    async with working(server, worker) as room:
        with pytest.raises(RoomError, match="agent 'worker' is started already"):
            await worker.start(room=room)


async def test_a_worker_that_will_not_end_is_logged(
    server: RunningServer, user: RoomClient, caplog: pytest.LogCaptureFixture
) -> None:
    release, busy = asyncio.Event(), asyncio.Event()

    class Stubborn(Worker):
        stop_seconds = 0.05

        async def process_message(self, **_: Any) -> None:
            busy.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    worker = make_worker(cls=Stubborn)
    async with working(server, worker):
        await user.queues.send(name="jobs", message=1)
        await soon(busy.wait())
        await worker.stop()
        assert "worker did not end in time" in caplog.messages
        release.set()
        worker.stop_seconds = 10.0
        await worker.stop()


def test_an_agent_describes_itself() -> None:
    kit, schema = RequiredToolkit(name="math", tools=["add"]), RequiredSchema(name="thread", callable=False)
    agent = Agent(name="a", requires=[kit, schema], labels=["x"])
    assert agent.to_json() == {
        "name": "a",
        "title": "a",
        "description": "",
        "labels": ["x"],
        "requires": [
            {"toolkit": "math", "tools": ["add"], "callable": True},
            {"schema": "thread", "callable": False},
        ],
    }
    assert repr(Agent(name="b", title="B", description="bee")) == "<Agent 'b'>"
    assert (Agent(name="b", title="B").title, Agent(name="b", description="bee").description) == ("B", "bee")


async def test_an_agent_begins_with_an_empty_conversation() -> None:
    assert (await Agent(name="a").init_chat_context()).messages == []


# What a worker requires


@asynccontextmanager
async def offered(server: RunningServer, *tools: Tool) -> AsyncIterator[RoomClient]:
    kit = RemoteToolkit(name="math", description="Numbers", tools=tools or [Add()])
    async with server.client("room", name="provider", role="agent") as room:
        await kit.start(room=room)
        try:
            yield room
        finally:
            await kit.stop()


@pytest.mark.parametrize("tools", [None, ["add"]])
async def test_a_required_toolkit_of_another_participant_is_there_for_the_model(
    server: RunningServer, user: RoomClient, tools: list[str] | None
) -> None:
    answers: asyncio.Queue[Any] = asyncio.Queue()

    async def use(call: Any) -> str:
        [kit] = call.toolkits
        context = ToolContext(room=call.room, caller=call.room.local_participant)
        answers.put_nowait((kit, await kit.execute(context=context, name="add", arguments={"a": 2, "b": 3})))
        return "5"

    requires = [RequiredToolkit(name="math", tools=tools, callable=False)]
    async with offered(server), working(server, make_worker(ScriptedLLM([use]), requires=requires)) as room:
        await user.queues.send(name="jobs", message=1)
        kit, answer = await soon(answers.get())
        await settled(user)
    assert (kit.name, kit.description, [tool.name for tool in kit.tools]) == ("math", "Numbers", ["add"])
    assert kit.tools[0].toolkit_name == "math"
    assert answer == TextResponse(f"5 for {room.local_participant.id}")


async def test_a_required_tool_that_is_missing_fails_the_message_not_the_worker(
    server: RunningServer, user: RoomClient
) -> None:
    requires = [RequiredToolkit(name="math", tools=["add", "divide"])]
    llm = ScriptedLLM(default="ok")
    async with AsyncExitStack() as stack:
        provider = AsyncExitStack()
        stack.push_async_callback(provider.aclose)
        await provider.enter_async_context(offered(server))
        await stack.enter_async_context(working(server, make_worker(llm, requires=requires)))
        await user.queues.send(name="jobs", message=1)
        await settled(user)
        await provider.aclose()
        await user.queues.send(name="jobs", message=2)
        await settled(user)
        reasons = [letter.reason for letter in await user.queues.dead(name="jobs")]
    assert "no toolkit 'math' in this room" in reasons[0]
    assert "toolkit 'math' has no tool 'divide'" in reasons[1]
    assert not llm.calls


async def test_a_worker_whose_requirement_is_missing_and_may_not_be_called_does_not_start(
    server: RunningServer,
) -> None:
    for requirement in (RequiredToolkit(name="math", callable=False), RequiredSchema(name="thread", callable=False)):
        worker = make_worker(requires=[requirement])
        async with server.client("room") as room:
            with pytest.raises(
                NotFoundError, match=f"agent 'worker' requires '{requirement.name}', which is not in the room"
            ):
                await worker.start(room=room)
        with pytest.raises(RoomError, match="not started"):
            worker.room  # noqa: B018


async def test_a_schema_in_the_rooms_storage_is_enough(server: RunningServer, user: RoomClient) -> None:
    await user.storage.upload(path=".schemas/thread.json", data=b"{}")
    async with working(server, make_worker(requires=[RequiredSchema(name="thread", callable=False)])) as room:
        assert room.is_open


async def test_a_requirement_that_the_room_may_not_call_is_refused(server: RunningServer) -> None:
    for requirement in (RequiredSchema(name="page"), RequiredToolkit(name="https://example.org/kit")):
        async with server.client("room") as room:
            with pytest.raises(AccessDeniedError, match=r"not among the URLs"):
                await make_worker(requires=[requirement]).start(room=room)


class Provider(QuietAgent):
    """Offers `math` when it was released."""

    release = asyncio.Event()

    async def start(self, *, room: RoomClient) -> None:
        await super().start(room=room)
        await self.release.wait()
        self.kit = RemoteToolkit(name="math", tools=[Add()])
        await self.kit.start(room=room)


@asynccontextmanager
async def callable_provider(serve: Callable[..., Any], cls: type[Provider]) -> AsyncIterator[tuple[RunningServer, str]]:
    """A room server and the URL of a host whose `/toolkits/math` the server may call."""
    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=["http://127.0.0.1:1"])
    host.add_path("/toolkits/math", cls=cls)
    await host.start()
    try:
        url = f"http://127.0.0.1:{host.port}"
        async with serve(server={"call_urls": [url]}) as server:
            host.parts.allowed._origins.add(("ws", "localhost", int(server.url.rpartition(":")[2])))
            yield server, url
            await host.stop()
    finally:
        await host.stop()


async def test_a_missing_requirement_is_called_into_the_room_and_awaited(serve: Callable[..., Any]) -> None:
    class Called(Provider):
        release = asyncio.Event()

    tasks, looked = TaskOwner("test"), asyncio.Event()

    class Looking(Worker):
        async def _missing(self, participant_id: str | None) -> Any:
            missing = await super()._missing(participant_id)
            if Called.made:
                looked.set()
            return missing

    async with callable_provider(serve, Called) as (server, url), server.client("room") as room:
        worker = make_worker(cls=Looking, requires=[RequiredToolkit(name="math")])
        worker.built_in_url = url
        starting = tasks.spawn(worker.start(room=room), name="start")
        provider = await Called.wait_made()
        await soon(provider.started.wait())
        await soon(looked.wait())
        assert not starting.done()
        Called.release.set()
        await soon(starting)
        await worker.stop()


async def test_a_requirement_that_does_not_come_is_named(serve: Callable[..., Any]) -> None:
    class Never(Provider):
        release = asyncio.Event()

    async with callable_provider(serve, Never) as (server, url), server.client("room") as room:
        worker = make_worker(requires=[RequiredToolkit(name="math")])
        worker.built_in_url, worker.install_seconds = url, 0.2
        with pytest.raises(NotFoundError, match=r"'math' did not come into the room within 0.2 s"):
            await soon(worker.start(room=room))
        Never.release.set()
