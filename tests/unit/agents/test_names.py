"""What an agent is called, and what it need not be told."""

from typing import Any

import pytest

from meshhost.agents.base import SingleRoomAgent
from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.agents.worker import Worker


class StorageWorker(Worker):
    """A worker without a model."""

    async def process_message(self, **message: Any) -> None:
        """See Worker."""


class HTTPProbe2(SingleRoomAgent):
    """An agent whose name has more than words."""


class Clock(TaskRunner):
    """A task runner without arguments."""

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """See TaskRunner."""


@pytest.mark.parametrize(
    ("agent", "name"),
    [(StorageWorker(queue="jobs"), "storage-worker"), (HTTPProbe2(), "http-probe2"), (HTTPProbe2(name="P"), "P")],
)
def test_an_agent_without_a_name_is_called_as_its_class(agent: SingleRoomAgent, name: str) -> None:
    assert (agent.name, agent.title) == (name, name)


def test_a_task_runner_without_a_schema_takes_no_arguments() -> None:
    assert Clock().to_json()["input_schema"]["properties"] == {}
