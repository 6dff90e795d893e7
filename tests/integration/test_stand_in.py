"""Our participants in a room that behaves as MeshAgent's reference does: every wait ends, and what is lost comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from doubles.stand_in import Misbehaviour, StandInServer

from meshhost.agents import ChatBot, TaskRunner, Worker
from meshhost.agents.chat.log import ThreadLog, new_thread, text_of
from meshhost.agents.thread_schema import ensure_thread_schema
from meshhost.errors import ConnectionLostError, RequestTimeoutError, RoomError, RoomRefusedError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.webhooks import webhook_body
from meshhost.protocol.messages import JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.testing.agents import QuietAgent
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.tools import RemoteToolkit, Tool, ToolContext
from meshhost.transport.websocket_client import WebSocketClientProtocol

AT_ONCE = ReconnectPolicy(first_delay=0.01, max_delay=0.05)
ANYTHING: dict[str, Any] = {"type": "object"}


@pytest.fixture(autouse=True)
async def limit() -> AsyncIterator[None]:
    async with asyncio.timeout(30):
        yield


@pytest.fixture
async def server() -> AsyncIterator[StandInServer]:
    async with StandInServer() as running:
        yield running


def joined(server: StandInServer, name: str = "ann", *, seconds: float = 10.0, **client: Any) -> RoomClient:
    return server.client(name=name, request_timeout=seconds, reconnect=AT_ONCE, **client)


def reconnected(room: RoomClient) -> asyncio.Event:
    """Set when the connection was lost and everything is restored."""
    event = asyncio.Event()
    room.on("reconnected", lambda **_: event.set())
    return event


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - what others do in the room tells no event
        await asyncio.sleep(0.005)


# The client


async def test_a_room_without_our_extensions_is_joined(server: StandInServer) -> None:
    room = joined(server)
    states: list[Any] = []
    room.on("room.status", lambda **fields: states.append(fields["status"]))
    async with room:
        assert (room.room_name, room.extensions) == ("room", {})
        assert room.local_participant.get_attribute("name") == "ann"
        await until(lambda: states == ["starting", "started"])


async def test_what_only_our_server_knows_is_refused_in_words(server: StandInServer) -> None:
    async with joined(server) as room:
        with pytest.raises(RoomError, match=r"unknown request queues\.dead"):
            await room.queues.dead(name="jobs")
        assert await room.queues.send(name="jobs", message={"n": 1}) is None
        [queue] = await room.queues.list()
        assert (queue.name, queue.size, queue.leased) == ("jobs", 1, None)
        leased = await room.queues.lease(name="jobs")
        assert leased is not None
        await leased.ack()
        await leased.extend()
        assert await leased.nack() is False
        assert await room.queues.receive(name="jobs", wait=False) is None
        assert not [kind for _, kind, _ in server.requests if kind in ("queues.ack", "queues.nack", "queues.extend")]


async def test_files_and_messages_work_as_in_our_own_rooms(server: StandInServer) -> None:
    async with joined(server) as ann, joined(server, "bob") as bob:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        bob.messaging.on("message", lambda message: heard.put_nowait((message.type, message.message)))
        stored: asyncio.Queue[Any] = asyncio.Queue()
        bob.storage.on("file.updated", lambda path, participant_id: stored.put_nowait(path))
        await bob.messaging.enable()
        await ann.messaging.enable()
        [seen] = ann.messaging.remote_participants
        assert seen.id == bob.local_participant.id
        await ann.messaging.send_message(to=seen, type="t", message={"n": 1})
        await ann.messaging.broadcast_message(type="all", message={"n": 2})
        assert [await heard.get(), await heard.get()] == [("t", {"n": 1}), ("all", {"n": 2})]
        data = bytes(range(256)) * 40
        await ann.storage.upload(path="a/b.bin", data=data)
        assert await stored.get() == "a/b.bin"
        assert (await bob.storage.download(path="a/b.bin")).data == data
        assert [(entry.name, entry.is_folder) for entry in await bob.storage.list(path="")] == [("a", True)]
        assert await bob.storage.list(path="nowhere") == []
        await bob.storage.delete("a/b.bin")
        with pytest.raises(RoomError, match="file not found"):
            await ann.storage.download(path="a/b.bin")


async def test_queues_that_are_missing_or_closed_are_told_as_errors(server: StandInServer) -> None:
    async with joined(server) as room, asyncio.TaskGroup() as tasks:
        for request in (room.queues.send(name="jobs", message=1, create=False), room.queues.close(name="jobs")):
            assert str(await _error_of(request)) == "no such queue"
        await room.queues.open(name="jobs")
        receive = tasks.create_task(_error_of(room.queues.receive(name="jobs")))
        await server.saw("queues.receive")
        await room.queues.close(name="jobs")
        assert str(await receive) == "the queue was closed"
        await room.queues.send(name="jobs", message=2)
        await room.queues.drain(name="jobs")
        assert await room.queues.receive(name="jobs", wait=False) is None


async def test_a_parked_receive_ends_empty(server: StandInServer) -> None:
    server.receive_seconds = 0.01
    async with joined(server) as room:
        assert await room.queues.receive(name="jobs") is None


async def test_the_developer_log_reaches_who_watches(server: StandInServer) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with joined(server) as room:
        room.developer.on("log", lambda **fields: heard.put_nowait(fields))
        await room.developer.enable()
        await room.developer.log(type="t", data={"n": 1})
        assert (await heard.get())["data"] == {"n": 1}
        await room.developer.disable()


async def test_messages_that_make_no_sense_harm_nobody(server: StandInServer) -> None:
    async with joined(server) as room:
        await room.messaging.enable()
        for kind in ("messaging.send", "storage.file.updated", "agent.ask", "room.sync", "connected", "no.such.type"):
            await server.tell("ann", kind, {"other": True})
        assert await room.storage.exists(path="") is True
        assert room.local_participant.get_attribute("name") == "ann"


async def test_two_see_each_others_edits(server: StandInServer) -> None:
    async with joined(server) as ann, joined(server, "bob") as bob:
        with pytest.raises(RoomError, match="no schema"):
            await ann.sync.open(path="a.thread")
        await ensure_thread_schema(ann)
        with pytest.raises(RoomError, match="no such document"):
            await ann.sync.open(path="a.thread", create=False)
        await ann.sync.create(path="a.thread", json=new_thread(members=["ann"]))
        one = ThreadLog(await ann.sync.open(path="a.thread"))
        other = ThreadLog(await bob.sync.open(path="a.thread"))
        one.add("from ann", author="ann")
        await until(other.messages)
        again = reconnected(ann)
        await server.drop("ann")
        other.add("from bob", author="bob")
        await again.wait()
        await until(lambda: [text_of(each) for each in one.messages()] == ["from ann", "from bob"])
        for room in (ann, bob):
            await room.sync.close(path="a.thread")


async def test_a_client_without_a_token_is_refused(server: StandInServer) -> None:
    with pytest.raises(RoomRefusedError) as caught:
        async with RoomClient(protocol=WebSocketClientProtocol(url=server.room_url(), token="none")):
            pass
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "how",
    [
        Misbehaviour.MALFORMED_HEADER,
        Misbehaviour.UNKNOWN_BODY,
        Misbehaviour.MISSING_MEMBER,
        Misbehaviour.RAW_BODY,
        Misbehaviour.OTHER_JSON,
    ],
)
async def test_a_reply_that_cannot_be_read_is_an_error_of_that_request_alone(
    server: StandInServer, how: Misbehaviour
) -> None:
    async with joined(server) as room:
        requests: dict[str, Callable[[], Any]] = {
            "storage.exists": lambda: room.storage.exists(path="a"),
            "storage.stat": lambda: room.storage.stat(path="a"),
            "storage.list": lambda: room.storage.list(path="a"),
            "storage.open": lambda: room.storage.open(path="a"),
            "storage.download": lambda: room.storage.download(path="a"),
            "storage.download_url": lambda: room.storage.download_url(path="a"),
            "queues.list": room.queues.list,
            "queues.dead": lambda: room.queues.dead(name="jobs"),
            "queues.replay": lambda: room.queues.replay(name="jobs"),
            "agent.list_agents": room.agents.list_agents,
            "agent.list_toolkits": room.agents.list_toolkits,
            "agent.ask": lambda: room.agents.ask(agent="adder", arguments={}),
            "room.connect": lambda: room.sync.open(path="a.thread"),
        }
        for name, request in requests.items():
            server.misbehave(name, how)
            if (name, how) == ("agent.ask", Misbehaviour.RAW_BODY):
                assert await request() is None
                continue
            with pytest.raises(RoomError) as caught:
                await request()
            assert not isinstance(caught.value, ConnectionLostError | RequestTimeoutError)
        assert await room.storage.exists(path="a") is False


@pytest.mark.parametrize("how", [Misbehaviour.TEXT_FRAME, Misbehaviour.INTERLEAVED])
async def test_a_broken_stream_is_left_and_the_room_joined_again(server: StandInServer, how: Misbehaviour) -> None:
    async with joined(server) as room:
        again = reconnected(room)
        server.misbehave("storage.exists", how)
        with pytest.raises(ConnectionLostError, match="broke the protocol"):
            await room.storage.exists(path="a")
        await again.wait()
        assert await room.storage.exists(path="a") is False


async def test_a_text_frame_between_requests_makes_the_client_join_again(server: StandInServer) -> None:
    async with joined(server) as room:
        again = reconnected(room)
        await server.send_text("ann")
        await again.wait()
        assert await room.storage.exists(path="a") is False


async def test_a_request_without_an_answer_times_out_and_the_room_goes_on(server: StandInServer) -> None:
    async with joined(server, seconds=0.2) as room:
        server.misbehave("storage.exists", Misbehaviour.NEVER)
        with pytest.raises(RequestTimeoutError):
            await room.storage.exists(path="a")
        assert await room.storage.exists(path="a") is False


async def test_an_answer_after_the_timeout_is_dropped(server: StandInServer) -> None:
    async with joined(server, seconds=0.2) as room:
        late = server.hold("storage.exists")
        with pytest.raises(RequestTimeoutError):
            await room.storage.exists(path="a")
        late.set()
        assert await room.storage.exists(path="") is True


async def test_a_slow_answer_keeps_no_other_request_waiting(server: StandInServer) -> None:
    async with joined(server) as room, asyncio.TaskGroup() as tasks:
        slow = server.hold("storage.exists")
        first = tasks.create_task(room.storage.exists(path=""))
        await server.saw("storage.exists")
        assert await room.storage.exists(path="a") is False
        slow.set()
        assert await first is True


@pytest.mark.parametrize("code", [1000, 1001, 1006])
async def test_requests_under_way_fail_when_the_connection_ends(server: StandInServer, code: int) -> None:
    async with joined(server) as room, asyncio.TaskGroup() as tasks:
        again = reconnected(room)
        receive = tasks.create_task(_error_of(room.queues.receive(name="jobs")))
        await server.saw("queues.receive")
        await server.drop("ann", code=code)
        assert isinstance(await receive, ConnectionLostError)
        await again.wait()
        assert room.is_open


async def _error_of(awaitable: Any) -> RoomError:
    with pytest.raises(RoomError) as caught:
        await awaitable
    return caught.value


async def test_leaving_ends_parked_receives(server: StandInServer) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with joined(server) as room:
            receive = tasks.create_task(_error_of(room.queues.receive(name="jobs")))
            await server.saw("queues.receive")
        assert isinstance(await receive, ConnectionLostError)


# Agents


class Listing(Worker):
    """Notes its messages; those that say so fail."""

    def __init__(self) -> None:
        super().__init__(queue="jobs", name="worker", llm_adapter=ScriptedLLM(default="done"))
        self.seen: asyncio.Queue[Any] = asyncio.Queue()

    async def process_message(self, *, message: Any, **_: Any) -> None:
        await self.seen.put(message)
        if message == {"fail": True}:
            raise ValueError("as the message says")


async def test_a_worker_works_off_a_queue_without_leases(server: StandInServer) -> None:
    async with joined(server, "worker") as own, joined(server) as room:
        worker = Listing()
        await worker.start(room=own)
        for message in ({"n": 1}, {"fail": True}, "a text"):
            await room.queues.send(name="jobs", message=message)
        assert [await worker.seen.get() for _ in range(3)] == [{"n": 1}, {"fail": True}, "a text"]
        await server.saw("queues.receive", times=4)
        # At most once: what failed does not come back, and nobody asked for it.
        assert {kind for name, kind, _ in server.requests if name == "worker"} == {"queues.receive"}
        await worker.drain()
        await worker.stop()


@pytest.mark.parametrize("code", [1000, 1001, 1006])
async def test_a_worker_goes_on_after_a_lost_connection(server: StandInServer, code: int) -> None:
    async with joined(server, "worker") as own, joined(server) as room:
        worker = Listing()
        await worker.start(room=own)
        await server.saw("queues.receive")
        await server.drop("worker", code=code)
        await server.saw("queues.receive", times=2)
        await room.queues.send(name="jobs", message={"n": 1})
        assert await worker.seen.get() == {"n": 1}
        await worker.stop()


async def test_a_worker_survives_every_answer_a_server_may_give(server: StandInServer) -> None:
    async with joined(server, "worker", seconds=0.3) as own, joined(server) as room:
        worker = Listing()
        server.misbehave("queues.receive", *Misbehaviour)
        await worker.start(room=own)
        await server.saw("queues.receive", times=len(Misbehaviour) + 1)
        await room.queues.send(name="jobs", message={"n": 1})
        # What OTHER_JSON brought was no fault: any JSON may be a message.
        assert [await worker.seen.get(), await worker.seen.get()] == [{"other": True}, {"n": 1}]
        await worker.stop()


class Adder(TaskRunner):
    """Adds."""

    def __init__(self) -> None:
        super().__init__(name="adder", input_schema=ANYTHING)

    async def ask(self, *, context: Any, arguments: Any) -> Any:
        return {"sum": arguments["a"] + arguments["b"]}


class Add(Tool):
    """Adds, too."""

    def __init__(self) -> None:
        super().__init__(name="add", input_schema=ANYTHING)

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        return {"sum": arguments["a"] + arguments["b"]}


@asynccontextmanager
async def offered(server: StandInServer) -> AsyncIterator[RoomClient]:
    """An agent and a toolkit of one participant."""
    async with joined(server, "adder") as own:
        agent, toolkit = Adder(), RemoteToolkit(name="math", tools=[Add()])
        await agent.start(room=own)
        await toolkit.start(room=own)
        yield own
        await toolkit.stop()
        await agent.stop()


async def check_sums(room: RoomClient) -> None:
    numbers = {"a": 1, "b": 2}
    assert [agent.name for agent in await room.agents.list_agents()] == ["adder"]
    assert [kit.name for kit in await room.agents.list_toolkits()] == ["math"]
    assert await room.agents.ask(agent="adder", arguments=numbers) == {"sum": 3}
    answer = await room.agents.invoke_tool(toolkit="math", tool="add", arguments=numbers)
    assert answer == JsonResponse(json={"sum": 3})
    with pytest.raises(RoomError, match="its log says why"):
        await room.agents.ask(agent="adder", arguments={})


@pytest.mark.parametrize("code", [1000, 1001, 1006])
async def test_agents_and_toolkits_are_offered_again_after_a_lost_connection(server: StandInServer, code: int) -> None:
    async with joined(server) as room, offered(server) as own:
        await check_sums(room)
        again = reconnected(own)
        await server.drop("adder", code=code)
        await again.wait()
        await check_sums(room)
    assert {"agent.unregister_agent", "agent.unregister_toolkit"} <= {kind for _, kind, _ in server.requests}


async def test_an_ask_that_is_never_answered_ends_with_the_asking(server: StandInServer) -> None:
    async with joined(server) as room, offered(server):
        server.misbehave("agent.ask", Misbehaviour.NEVER)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await room.agents.ask(agent="adder", arguments={})
        # A server without extensions is not told of it: it would not know the word.
        assert "agent.abandon" not in {kind for _, kind, _ in server.requests}
        await check_sums(room)


@pytest.mark.parametrize("how", [Misbehaviour.MALFORMED_HEADER, Misbehaviour.OTHER_JSON, Misbehaviour.NEVER])
async def test_an_agent_that_cannot_register_fails_to_start(server: StandInServer, how: Misbehaviour) -> None:
    async with joined(server, "adder", seconds=0.2) as own:
        for agent, request in ((Adder(), "agent"), (RemoteToolkit(name="math", tools=[Add()]), "toolkit")):
            server.misbehave(f"agent.register_{request}", how)
            with pytest.raises(RoomError):
                await agent.start(room=own)
            await agent.stop()


async def test_a_chat_bot_answers_in_a_thread(server: StandInServer) -> None:
    async with joined(server, "bot") as own, joined(server) as room:
        bot = ChatBot(name="bot", llm_adapter=ScriptedLLM(["Hello", "Hello again"]), echo_seconds=0.2)
        await bot.start(room=own)
        await room.messaging.enable()
        await ensure_thread_schema(room)
        await room.sync.create(path="a.thread", json=new_thread(members=["bot", "ann"]))
        log = ThreadLog(await room.sync.open(path="a.thread", create=False))
        for number, answer in enumerate(("Hello", "Hello again"), start=1):
            log.add("Hi", author="ann")
            await room.sync.flush("a.thread")
            [to] = room.messaging.remote_participants
            await room.messaging.send_message(to=to, type="chat", message={"path": "a.thread", "text": "Hi"})
            await until(lambda n=number: len(log.messages()) == 2 * n)  # type: ignore[misc]
            await until(lambda a=answer: text_of(log.messages()[-1]) == a)  # type: ignore[misc]
            again = reconnected(own)
            await server.drop("bot")
            await again.wait()
            await until(lambda: len(room.messaging.remote_participants) == 1)
        await room.sync.close(path="a.thread")
        await bot.stop()


@pytest.mark.parametrize("code", [1001, 1006])
async def test_who_asked_is_told_when_the_provider_leaves(server: StandInServer, code: int) -> None:
    class Slow(TaskRunner):
        """Never done."""

        async def ask(self, *, context: Any, arguments: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

    reached = asyncio.Event()
    async with joined(server) as room, joined(server, "slow") as own, asyncio.TaskGroup() as tasks:
        agent = Slow(name="slow", input_schema=ANYTHING)
        await agent.start(room=own)
        asked = tasks.create_task(_error_of(room.agents.ask(agent="slow", arguments={})))
        await reached.wait()
        again = reconnected(own)
        await server.drop("slow", code=code)
        assert str(await asked) == "slow has left the room"
        await again.wait()
        await agent.stop()


async def test_another_agent_may_register_after_one_that_could_not(server: StandInServer) -> None:
    async with joined(server, "adder") as own, joined(server) as room:
        server.misbehave("agent.register_agent", Misbehaviour.UNKNOWN_BODY)
        with pytest.raises(RoomError, match="unreadable reply"):
            await Adder().start(room=own)
        agent = Adder()
        await agent.start(room=own)
        assert await room.agents.ask(agent="adder", arguments={"a": 1, "b": 1}) == {"sum": 2}
        await agent.stop()


# Agents of a host


async def test_agents_of_a_host_join_and_come_back(server: StandInServer) -> None:
    class Quiet(QuietAgent):
        made = []  # noqa: RUF012 - one list per test

    host = ServiceHost(port=0, webhook_secret="", allowed_room_urls=[server.url])
    host.add_path("/adder", cls=Adder, identity="adder")
    host.add_path("/quiet", cls=Quiet, identity="quiet")
    async with AsyncExitStack() as stack:
        await host.start()
        stack.push_async_callback(host.stop)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        for name in ("adder", "quiet"):
            token = server.token(name=name, role="agent")
            data = {"room_name": "room", "room_url": server.room_url(), "token": token, "arguments": {}}
            async with http.post(
                f"http://127.0.0.1:{host.port}/{name}", data=webhook_body("room.call", data)
            ) as response:
                assert response.status == 200
        room = await stack.enter_async_context(joined(server))
        await server.saw("agent.register_agent")
        assert await room.agents.ask(agent="adder", arguments={"a": 1, "b": 2}) == {"sum": 3}
        await server.drop("adder", code=1001)
        await server.saw("agent.register_agent", times=2)
        assert await room.agents.ask(agent="adder", arguments={"a": 2, "b": 2}) == {"sum": 4}
        assert len(host.agents) == 2
