"""Every operation of a room with every section of a scope: each is opened by the one that the table names and by no other.

The operations come from the services of a running server, so that a new one fails until its line here says who may use it.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError
from meshhost.identity.grants import ApiScope
from meshhost.testing.server import RunningServer

# What these do concerns only what their sender began, or is checked when it is known what it is about.
FREE: Mapping[str, str] = {
    "agent.abandon": "gives up a call of its own",
    "agent.ask_response": "answers an ask that it got",
    "agent.tool_call_progress": "reports of a call that it got",
    "agent.tool_call_request_chunk": "of a call that it made",
    "agent.tool_call_response": "answers a call that it got",
    "agent.tool_call_response_chunk": "answers a call that it got",
    "agent.unregister_agent": "its own registration",
    "agent.unregister_toolkit": "its own registration",
    "messaging.disable": "hides itself",
    "queues.received": "confirms what it received",
    "set_attributes": "its own",
    "sync.close": "closes what it opened",
    "sync.update": "its handler checks the grant: a client that gets an error never sends an edit again",
}
ON_THE_WIRE = {"sync.create": "room.create", "sync.open": "room.connect"}
# Section, the switch or list in it that closes the operation, and a body.
PATH = {"path": "a/b"}
QUEUE = {"name": "q"}
TABLE = {"table": "t"}
# Grants of this table that permit everything but one thing.
UNREAD = {"tables": [{"name": "t", "read": False, "write": True, "alter": True}]}
WRITE = {"tables": [{"name": "t", "alter": True}]}
ALTER = {"tables": [{"name": "t", "write": True}]}
LEASE = {**QUEUE, "lease": "x"}
LINE = {
    "at": 1.0,
    "level": "INFO",
    "logger": "a",
    "text": "t",
    "queue": "q",
    "message_id": "1",
    "attempt": 1,
}
SPAN = {"trace": "a" * 32, "id": "b" * 16, "name": "n", "begin": 1.0, "seconds": 1.0}
ALL: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "agent.ask": ("agents", {"use_agents": False}, {"agent": "a"}),
    "agent.call": ("agents", {"call": False}, {"name": "n", "url": "http://h/"}),
    "agent.invoke_tool": ("agents", {"allowed_toolkits": []}, {"toolkit": "t", "tool": "x"}),
    "agent.list_agents": ("agents", {"use_agents": False}, {}),
    "agent.list_callable": ("agents", {"use_tools": False, "use_agents": False}, {}),
    "agent.list_toolkits": ("agents", {"use_tools": False}, {}),
    "agent.register_agent": ("agents", {"register_agent": False}, {"name": "n"}),
    "agent.register_toolkit": ("agents", {"register_private_toolkit": False}, {"name": "n", "tools": {}}),
    "database.add_columns": ("database", ALTER, {**TABLE, "new_columns": {"c": "1"}}),
    "database.checkout": ("database", UNREAD, {**TABLE, "version": 1}),
    "database.create_full_text_search_index": ("database", ALTER, {**TABLE, "column": "c"}),
    "database.create_scalar_index": ("database", ALTER, {**TABLE, "column": "c"}),
    "database.create_table": ("database", ALTER, {"name": "t"}),
    "database.create_vector_index": ("database", ALTER, {**TABLE, "column": "c"}),
    "database.delete": ("database", WRITE, {**TABLE, "where": "true"}),
    "database.drop_columns": ("database", ALTER, {**TABLE, "columns": ["c"]}),
    "database.drop_index": ("database", ALTER, {**TABLE, "name": "i"}),
    "database.drop_table": ("database", ALTER, {"name": "t"}),
    "database.insert": ("database", WRITE, {**TABLE, "records": []}),
    "database.list_indexes": ("database", UNREAD, TABLE),
    "database.list_tables": ("database", {"list_tables": False}, {}),
    "database.list_versions": ("database", UNREAD, TABLE),
    "database.merge": ("database", WRITE, {**TABLE, "on": "c", "records": []}),
    "database.optimize": ("database", ALTER, TABLE),
    "database.restore": ("database", ALTER, {**TABLE, "version": 1}),
    "database.search": ("database", UNREAD, TABLE),
    "database.update": ("database", WRITE, {**TABLE, "where": "true", "values": {"c": 1}}),
    "developer.log": ("developer", {"logs": False}, {"type": "t", "data": {}}),
    "developer.report": ("developer", {"logs": False}, {"lines": [LINE]}),
    "developer.unwatch": ("developer", {"logs": False}, {}),
    "developer.watch": ("developer", {"logs": False}, {}),
    "traces.report": ("developer", {"logs": False}, {"spans": [SPAN]}),
    "livekit.connect": ("livekit", {"breakout_rooms": []}, {"breakout_room": "b"}),
    "messaging.broadcast": ("messaging", {"broadcast": False}, {"type": "t", "message": {}}),
    "messaging.enable": ("messaging", {"list": False}, {}),
    "messaging.send": ("messaging", {"send": False}, {"to_participant_id": "p", "type": "t", "message": {}}),
    "messaging.stream": ("messaging", {"send": False}, {"stream": "s"}),
    "queues.ack": ("queues", {"receive": []}, LEASE),
    "queues.ack_many": ("queues", {"receive": []}, {**QUEUE, "acks": [{"lease": "x"}]}),
    "queues.body": ("queues", {"receive": []}, {**QUEUE, "id": "1"}),
    "queues.cancel": ("queues", {"receive": []}, {**QUEUE, "id": "1"}),
    "queues.configure": ("queues", {"receive": []}, {**QUEUE, "settings": {}}),
    "queues.close": ("queues", {"receive": []}, QUEUE),
    "queues.dead": ("queues", {"receive": []}, QUEUE),
    "queues.drain": ("queues", {"receive": []}, QUEUE),
    "queues.extend": ("queues", {"receive": []}, {**LEASE, "seconds": 1}),
    "queues.find": ("queues", {"receive": []}, QUEUE),
    "queues.get": ("queues", {"receive": [], "send": []}, {**QUEUE, "id": "1"}),
    "queues.list": ("queues", {"list": False}, {}),
    "queues.nack": ("queues", {"receive": []}, LEASE),
    "queues.open": ("queues", {"receive": [], "send": []}, QUEUE),
    "queues.peek": ("queues", {"receive": []}, QUEUE),
    "queues.receive": ("queues", {"receive": []}, QUEUE),
    "queues.replay": ("queues", {"receive": []}, QUEUE),
    "queues.send": ("queues", {"send": []}, {**QUEUE, "message": {}}),
    "queues.send_many": ("queues", {"send": []}, {**QUEUE, "messages": [{"message": {}}]}),
    "queues.upload": ("queues", {"receive": [], "send": []}, QUEUE),
    "queues.upload_write": ("queues", {}, {"handle": "h"}),
    "queues.settings": ("queues", {"receive": []}, QUEUE),
    "storage.abort": ("storage", {}, {"handle": "h"}),
    "storage.close": ("storage", {}, {"handle": "h"}),
    "storage.delete": ("storage", {"paths": [{"path": "a", "read_only": True}]}, PATH),
    "storage.download": ("storage", {"paths": []}, PATH),
    "storage.download_url": ("storage", {"paths": []}, PATH),
    "storage.exists": ("storage", {"paths": []}, PATH),
    "storage.list": ("storage", {}, PATH),
    "storage.move": (
        "storage",
        {"paths": [{"path": "a", "read_only": True}]},
        {"source_path": "a/b", "destination_path": "a/c"},
    ),
    "storage.open": ("storage", {"paths": [{"path": "a", "read_only": True}]}, PATH),
    "storage.read": ("storage", {"paths": []}, {"path": "a", "length": 1}),
    "storage.stat": ("storage", {"paths": []}, PATH),
    "storage.write": ("storage", {}, {"handle": "h"}),
    "sync.create": ("sync", {"paths": [{"path": "a/b", "read_only": True}]}, PATH),
    "sync.describe": ("sync", {"paths": []}, PATH),
    "sync.open": ("sync", {"paths": []}, PATH),
}


def test_every_operation_says_who_may_use_it(server: RunningServer) -> None:
    operations = server.server.parts.services.operations()
    assert set(operations) == set(FREE) | set(ALL)
    assert {name for name, operation in operations.items() if operation.grant is None} == set(FREE)


@pytest.mark.parametrize("name", sorted(ALL))
def test_an_operation_is_opened_by_its_section_only(server: RunningServer, name: str) -> None:
    operation = server.server.parts.services.operations()[name]
    section, limits, values = ALL[name]
    body = operation.body.model_validate(values)
    assert operation.grant is not None
    opened = {other for other in ApiScope.model_fields if operation.grant(ApiScope.model_validate({other: {}}), body)}
    assert opened == {section}
    assert not operation.grant(ApiScope(), body)
    others = {other: {} for other in ApiScope.model_fields if other != section}
    assert not operation.grant(ApiScope.model_validate(others), body)
    if limits:
        assert not operation.grant(ApiScope.model_validate({**others, section: limits}), body)


async def test_a_participant_without_rights_is_refused_each_of_them(server: RunningServer) -> None:
    async with server.client(scope=ApiScope()) as room:
        for name, (_, _, values) in ALL.items():
            with pytest.raises(AccessDeniedError):
                await room.send_request(ON_THE_WIRE.get(name, name), values)
