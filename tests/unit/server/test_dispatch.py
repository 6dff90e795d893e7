"""The table of requests: every operation needs its grant, and reads its body before anything happens."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import NotFoundError, StorageFullError
from meshhost.identity.grants import (
    AgentsGrant,
    ApiScope,
    DeveloperGrant,
    MessagingGrant,
    QueuesGrant,
    StorageGrant,
    StoragePathGrant,
)
from meshhost.protocol.messages import EmptyResponse, ErrorResponse
from meshhost.queues.over_engine import queue_service
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.requests import Body, Operation, Operations
from meshhost.server.core.service import ServiceSet
from meshhost.server.services.agents.service import AgentsService
from meshhost.server.services.developer import DeveloperService
from meshhost.server.services.messaging import MessagingService
from meshhost.server.services.queues import QueuesService
from meshhost.server.services.storage.service import StorageService
from meshhost.stores.files import RoomFiles, open_object_store
from meshhost.stores.memory.engine import memory_engine


async def _no_call(*_: Any) -> None:
    return None


def _table(tmp_path: Path) -> Operations:
    queues = QueuesService(queue_service(memory_engine()), receive_seconds=1, lease_seconds=30)
    files = RoomFiles(open_object_store(tmp_path / "files"))
    storage = StorageService(files, sign_url=lambda *_: "", max_upload_bytes=100, max_download_bytes=100)
    services = [
        MessagingService(on_dismissed=queues.dismiss),
        queues,
        storage,
        AgentsService(files, call_seconds=1, call_out=_no_call),
        DeveloperService(),
    ]
    return ServiceSet(services).operations()


# For every operation: a body that is right, and a scope that grants everything but this.
_FULL = ApiScope.full()


def _without(**sections: Any) -> ApiScope:
    return _FULL.model_copy(update=sections)


_NO_QUEUE = _without(queues=QueuesGrant(send=["other"], receive=["other"]))
_NO_RECEIVE = _without(queues=QueuesGrant(receive=["other"]))
_READ_ONLY = _without(storage=StorageGrant(paths=[StoragePathGrant(path="f", read_only=True)]))
_ELSEWHERE = _without(storage=StorageGrant(paths=[StoragePathGrant(path="other")]))

LINE = {
    "at": 1.0,
    "level": "INFO",
    "logger": "a",
    "text": "t",
    "queue": "q",
    "message_id": "1",
    "attempt": 1,
}
REFUSED: dict[str, list[tuple[dict[str, Any], ApiScope]]] = {
    "messaging.enable": [({}, _without(messaging=MessagingGrant(list=False)))],
    "messaging.send": [
        ({"to_participant_id": "x", "type": "t", "message": {}}, _without(messaging=MessagingGrant(send=False)))
    ],
    "messaging.broadcast": [({"type": "t", "message": {}}, _without(messaging=MessagingGrant(broadcast=False)))],
    "messaging.stream": [({"stream": "s"}, _without(messaging=MessagingGrant(send=False)))],
    "queues.list": [({}, _without(queues=QueuesGrant(list=False)))],
    "queues.open": [({"name": "q"}, _NO_QUEUE)],
    "queues.send": [({"name": "q", "message": 1}, _without(queues=QueuesGrant(send=["other"])))],
    "queues.send_many": [({"name": "q", "messages": [{"message": 1}]}, _without(queues=QueuesGrant(send=["other"])))],
    "queues.receive": [({"name": "q"}, _NO_RECEIVE)],
    "queues.ack": [({"name": "q", "lease": "1.1.h"}, _NO_RECEIVE)],
    "queues.ack_many": [({"name": "q", "acks": [{"lease": "1.1.h"}]}, _NO_RECEIVE)],
    "queues.nack": [({"name": "q", "lease": "1.1.h"}, _NO_RECEIVE)],
    "queues.extend": [({"name": "q", "lease": "1.1.h", "seconds": 1}, _NO_RECEIVE)],
    "queues.drain": [({"name": "q"}, _NO_RECEIVE)],
    "queues.close": [({"name": "q"}, _NO_RECEIVE)],
    "queues.dead": [({"name": "q"}, _NO_RECEIVE)],
    "queues.replay": [({"name": "q"}, _NO_RECEIVE)],
    "queues.get": [({"name": "q", "id": "1"}, _NO_QUEUE)],
    "queues.find": [({"name": "q"}, _NO_RECEIVE)],
    "queues.peek": [({"name": "q"}, _NO_RECEIVE)],
    "queues.cancel": [({"name": "q", "id": "1"}, _NO_RECEIVE)],
    "queues.settings": [({"name": "q"}, _NO_RECEIVE)],
    "queues.configure": [({"name": "q", "settings": {}}, _NO_RECEIVE)],
    "storage.exists": [({"path": "f"}, _ELSEWHERE)],
    "storage.stat": [({"path": "f"}, _ELSEWHERE)],
    "storage.list": [({"path": ""}, _without(storage=None))],
    "storage.open": [({"path": "f"}, _ELSEWHERE), ({"path": "f"}, _READ_ONLY)],
    "storage.write": [({"handle": "h"}, _without(storage=None))],
    "storage.close": [({"handle": "h"}, _without(storage=None))],
    "storage.abort": [({"handle": "h"}, _without(storage=None))],
    "storage.download": [({"path": "f"}, _ELSEWHERE)],
    "storage.read": [({"path": "f", "length": 1}, _ELSEWHERE)],
    "storage.download_url": [({"path": "f"}, _ELSEWHERE)],
    "storage.delete": [({"path": "f"}, _ELSEWHERE), ({"path": "f"}, _READ_ONLY)],
    "storage.move": [
        ({"source_path": "f", "destination_path": "g"}, _ELSEWHERE),
        ({"source_path": "f", "destination_path": "g"}, _READ_ONLY),
    ],
    "agent.register_toolkit": [
        ({"name": "k", "tools": {}}, _without(agents=AgentsGrant(register_private_toolkit=False))),
        ({"name": "k", "tools": {}, "public": True}, _without(agents=AgentsGrant(register_public_toolkit=False))),
    ],
    "agent.list_toolkits": [({}, _without(agents=AgentsGrant(use_tools=False)))],
    "agent.list_callable": [({}, _without(agents=AgentsGrant(use_tools=False, use_agents=False)))],
    "agent.invoke_tool": [
        ({"toolkit": "k", "tool": "t"}, _without(agents=AgentsGrant(use_tools=False))),
        ({"toolkit": "k", "tool": "t"}, _without(agents=AgentsGrant(allowed_toolkits=["other"]))),
    ],
    "agent.register_agent": [({"name": "a"}, _without(agents=AgentsGrant(register_agent=False)))],
    "agent.list_agents": [({}, _without(agents=AgentsGrant(use_agents=False)))],
    "agent.ask": [({"agent": "a"}, _without(agents=AgentsGrant(use_agents=False)))],
    "agent.call": [({"name": "a", "url": "http://h"}, _without(agents=AgentsGrant(call=False)))],
    "developer.log": [({"type": "t", "data": {}}, _without(developer=DeveloperGrant(logs=False)))],
    "developer.report": [({"lines": [LINE]}, _without(developer=DeveloperGrant(logs=False)))],
    "developer.watch": [({}, _without(developer=DeveloperGrant(logs=False)))],
    "developer.unwatch": [({}, _without(developer=DeveloperGrant(logs=False)))],
}
# About the asker itself: who may be here may do these.
FREE = {
    "agent.tool_call_request_chunk",
    "queues.received",
    "set_attributes",
    "messaging.disable",
    "agent.unregister_toolkit",
    "agent.tool_call_progress",
    "agent.tool_call_response",
    "agent.tool_call_response_chunk",
    "agent.unregister_agent",
    "agent.ask_response",
    "agent.abandon",
}
ONE_WAY = {
    "queues.received",
    "set_attributes",
    "agent.tool_call_progress",
    "agent.tool_call_response",
    "agent.tool_call_response_chunk",
    "agent.ask_response",
    "agent.abandon",
}


def test_every_operation_has_a_test_of_its_grant(tmp_path: Path) -> None:
    assert set(_table(tmp_path)) == REFUSED.keys() | FREE


def test_one_way_messages_are_those_of_the_protocol(tmp_path: Path) -> None:
    assert {name for name, operation in _table(tmp_path).items() if operation.is_one_way} == ONE_WAY


@pytest.mark.parametrize(
    ("name", "body", "scope"),
    [
        pytest.param(name, body, scope, id=f"{name}-{number}-{kind}")
        for name, cases in REFUSED.items()
        for number, (body, without) in enumerate(cases)
        for kind, scope in (("without", without), ("nothing", ApiScope()))
    ],
)
async def test_an_operation_is_refused_without_its_grant(
    serving: Any, tmp_path: Path, name: str, body: dict[str, Any], scope: ApiScope
) -> None:
    counted: list[tuple[str, str]] = []
    dispatcher = Dispatcher(_table(tmp_path), count=lambda *outcome: counted.append(outcome))
    async with serving(dispatcher, scope=scope) as served:
        answer = await served.ask(name, body)
        assert isinstance(answer, ErrorResponse)
        assert answer.text.startswith(f"permission denied: {name}")
        assert answer.code == 1001
    assert counted == [(name, "refused")]


@pytest.mark.parametrize("name", sorted(FREE - ONE_WAY))
async def test_what_is_about_oneself_needs_no_grant(serving: Any, tmp_path: Path, name: str) -> None:
    dispatcher = Dispatcher(_table(tmp_path), count=lambda *_: None)
    async with serving(dispatcher, scope=ApiScope()) as served:
        answer = await served.ask(name, {"id": "x", "stream": "s", "chunk": {}})
        assert isinstance(answer, EmptyResponse) or "no such registration" in getattr(answer, "text", "")


async def test_an_unknown_request_is_refused_and_not_named_in_metrics(serving: Any, tmp_path: Path) -> None:
    counted: list[tuple[str, str]] = []
    dispatcher = Dispatcher(_table(tmp_path), count=lambda *outcome: counted.append(outcome))
    async with serving(dispatcher) as served:
        answer = await served.ask("tenant-secret.x")
        assert isinstance(answer, ErrorResponse)
        assert "does not offer 'tenant-secret.x'" in answer.text
    assert counted == [("unknown", "refused")]


@pytest.mark.parametrize("name", sorted(name for name, cases in REFUSED.items() if cases[0][0]))
async def test_a_missing_member_is_named_before_the_grant_is_looked_at(serving: Any, tmp_path: Path, name: str) -> None:
    dispatcher = Dispatcher(_table(tmp_path), count=lambda *_: None)
    async with serving(dispatcher, scope=ApiScope()) as served:
        answer = await served.ask(name, {})
        assert isinstance(answer, ErrorResponse)
        assert answer.code == 1002
        assert answer.text.split(":")[0] in REFUSED[name][0][0]


async def test_a_wrong_one_way_message_is_logged_and_not_answered(
    serving: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dispatcher = Dispatcher(_table(tmp_path), count=lambda *_: None)
    async with serving(dispatcher) as served:
        await served.send("agent.ask_response", {})
        assert isinstance(await served.ask("messaging.disable"), EmptyResponse)
    assert "one-way message refused" in caplog.text


async def test_a_path_that_is_not_plain_is_refused_before_its_grant(serving: Any, tmp_path: Path) -> None:
    dispatcher = Dispatcher(_table(tmp_path), count=lambda *_: None)
    async with serving(dispatcher, scope=_ELSEWHERE) as served:
        answer = await served.ask("storage.download", {"path": "other/../f"})
        assert isinstance(answer, ErrorResponse)
        assert answer.code == 1002
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "accepted"), (NotFoundError("x"), "refused"), (StorageFullError("x"), "failed"), (KeyError("x"), "failed")],
)
@pytest.mark.parametrize("waits", [False, True])
async def test_a_request_is_counted_by_what_became_of_it(
    serving: Any, error: Exception | None, outcome: str, waits: bool
) -> None:
    counted: list[tuple[str, str]] = []

    def at_once(*_: Any) -> EmptyResponse:
        if error is not None:
            raise error
        return EmptyResponse()

    async def later(*_: Any) -> EmptyResponse:
        return at_once()

    table = {"x.do": Operation(Body, later if waits else at_once)}
    async with serving(Dispatcher(table, count=lambda *outcome: counted.append(outcome))) as served:
        answer = await served.ask("x.do")
        assert isinstance(answer, EmptyResponse if error is None else ErrorResponse)
    assert counted == [("x.do", outcome)]


async def test_a_full_disk_under_the_files_has_a_code_too(serving: Any) -> None:
    async def upload(*_: Any) -> EmptyResponse:
        raise OSError(errno.ENOSPC, "No space left on device")

    table = {"x.do": Operation(Body, upload)}
    async with serving(Dispatcher(table, count=lambda *_: None)) as served:
        answer = await served.ask("x.do")
        assert isinstance(answer, ErrorResponse)
        assert (answer.code, answer.text.split(":")[0]) == (StorageFullError.code, "storage full")
