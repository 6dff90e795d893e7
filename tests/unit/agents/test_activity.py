"""What agents tell of their work: its kind and since when, nothing of what it is about."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from meshhost.agents import task_runner, worker
from meshhost.agents.agent import Agent
from meshhost.agents.chat import ChatBot
from meshhost.agents.chat.policy import ChatRequest
from meshhost.agents.chat.thread import ChatThread
from meshhost.agents.task_runner import TaskRunner
from meshhost.agents.worker import Worker
from meshhost.testing.clock import FakeClock
from meshhost.testing.scripted_llm import ScriptedLLM


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`now.seconds` is the time."""
    time = SimpleNamespace(seconds=100.0)
    time.monotonic = lambda: time.seconds
    for module in (worker, task_runner):
        monkeypatch.setattr(module, "time", time)
    return time


def test_an_agent_does_nothing_unless_it_says_so() -> None:
    assert Agent(name="mail").activity is None


async def test_a_worker_tells_of_the_message_in_work(now: Any) -> None:
    class Held(Worker):
        def decode_message(self, message: Any) -> Any:
            raise KeyError("secret")

    agent = Held(queue="jobs", name="worker", llm_adapter=ScriptedLLM())
    assert agent.activity is None
    agent._consumer = consumer = SimpleNamespace(processing=())  # type: ignore[assignment]
    assert agent.activity is None
    agent._room = SimpleNamespace()  # type: ignore[assignment]
    with pytest.raises(KeyError):
        await agent._process(SimpleNamespace(message="secret"))  # type: ignore[arg-type]
    consumer.processing = (SimpleNamespace(began=now.seconds),)
    now.seconds += 12.3
    assert agent.activity == "a message of queue 'jobs' for 12 s"
    consumer.processing = (SimpleNamespace(began=now.seconds), *consumer.processing)
    assert agent.activity == "2 messages of queue 'jobs' for 12 s"


async def test_a_task_runner_tells_how_many_tasks_and_how_old_the_oldest_is(now: Any) -> None:
    answered: list[Any] = []

    async def answer_ask(message: Any, answer: Any) -> None:
        answered.append(answer)

    class Held(TaskRunner):
        def __init__(self) -> None:
            super().__init__(name="runner", input_schema={"type": "object"})
            self.release = asyncio.Event()

        async def ask(self, *, context: Any, arguments: Any) -> Any:
            await self.release.wait()
            return {}

    agent = Held()
    room: Any = SimpleNamespace(
        agents=SimpleNamespace(answer_ask=answer_ask), local_participant=None, participant=lambda _: None
    )
    assert agent.activity is None
    async with asyncio.TaskGroup() as tasks:
        for told in ("a task for 3 s", "2 tasks, the oldest for 6 s"):
            tasks.create_task(agent._answer(room, SimpleNamespace(header={"arguments": {}})))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            now.seconds += 3
            assert agent.activity == told
        agent.release.set()
    assert (agent.activity, answered) == (None, [{}, {}])


def test_a_chat_bot_tells_of_the_threads_it_answers_in() -> None:
    clock = FakeClock()
    bot = ChatBot(name="bot", llm_adapter=ScriptedLLM(), clock=clock)
    assert bot.activity is None
    first, second, third = (ChatThread(bot, path) for path in ("a.thread", "b.thread", "c.thread"))
    bot.open_threads.add(first)
    assert bot.activity == "opening thread 'a.thread'"
    for thread, kind in ((first, "chat"), (second, "clear"), (third, "chat")):
        thread._context = SimpleNamespace(path=thread.path)  # type: ignore[assignment]
        thread._begin(ChatRequest(kind=kind, path=thread.path, sender_id="x", text="secret", raw={}))  # type: ignore[arg-type]
    clock.skip(4)
    assert bot.activity == "an answer in thread 'a.thread' for 4 s"
    assert second.activity == "a request for thread 'b.thread' for 4 s"
    for thread in (second, third):
        bot.open_threads.add(thread)
    assert bot.activity == "an answer in thread 'a.thread' for 4 s; 2 more threads"
    for thread in (first, second, third):
        thread._current = None
    assert bot.activity is None
