"""Messages, presence and attributes between real participants."""

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError, InvalidRequestError, NotFoundError
from meshhost.identity.grants import AgentsGrant, ApiScope, MessagingGrant
from meshhost.room.client import RoomClient
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.server import RunningServer


def _as_seen(room: RoomClient) -> RemoteParticipant:
    return RemoteParticipant(id=room.local_participant.id)


async def test_the_participants_are_known_when_enable_returns(server: RunningServer) -> None:
    async with server.client(name="first", role="agent") as first, server.client(name="second") as second:
        await first.messaging.enable()
        await second.messaging.enable()
        (seen,) = second.messaging.get_participants()
        assert (seen.id, seen.role, seen.get_attribute("name")) == (first.local_participant.id, "agent", "first")
        assert second.messaging.get_participant(seen.id) is seen


async def test_those_who_enabled_hear_of_one_another(server: RunningServer, heard: Any) -> None:
    async with server.client(name="first") as first:
        added = heard(first.messaging, "participant_added", "participant")
        removed = heard(first.messaging, "participant_removed", "participant")
        changed = heard(first.messaging, "participant_attributes_updated", "participant")
        await first.messaging.enable()
        async with server.client(name="second") as second:
            await second.messaging.enable()
            assert (await added.get()).get_attribute("name") == "second"
            await second.local_participant.set_attribute("mood", "fine")
            assert (await changed.get()).get_attribute("mood") == "fine"
            await second.messaging.disable()
            assert (await removed.get()).id == second.local_participant.id
            assert second.messaging.remote_participants == []
            await second.messaging.enable()
            await added.get()
        assert (await removed.get()).get_attribute("name") == "second"
        assert first.messaging.remote_participants == []


async def test_a_directed_message_reaches_one_who_never_enabled(server: RunningServer, heard: Any) -> None:
    async with server.client(name="a") as a, server.client(name="b") as b:
        messages = heard(b.messaging, "message", "message")
        await a.messaging.send_message(to=_as_seen(b), type="hi", message={"n": 1}, attachment=b"bytes")
        got = await messages.get()
        assert (got.type, got.message, got.attachment) == ("hi", {"n": 1}, b"bytes")
        assert got.from_participant_id == a.local_participant.id
        a.messaging.send_message_nowait(to=_as_seen(b), type="hi", message={"n": 2})
        assert (await messages.get()).message == {"n": 2}


async def test_a_broadcast_reaches_all_who_enabled_but_the_sender(server: RunningServer, heard: Any) -> None:
    async with server.client(name="a") as a, server.client(name="b") as b, server.client(name="c") as c:
        of_a, of_b, of_c = (heard(room.messaging, "message", "message") for room in (a, b, c))
        await a.messaging.enable()
        await b.messaging.enable()
        await a.messaging.broadcast_message(type="news", message={"x": 1}, attachment=b"y")
        assert (await of_b.get()).attachment == b"y"
        # Requests of one connection are served in order: whatever the broadcast sent to these has arrived.
        await a.queues.list()
        await c.queues.list()
        assert of_a.empty()
        assert of_c.empty()


@pytest.mark.parametrize("type", ["messaging.enabled", "participant.disabled", "participant.enabled", "messaging.x"])
async def test_messages_of_the_servers_own_types_are_refused(server: RunningServer, type: str) -> None:
    async with server.client(name="a") as a:
        with pytest.raises(InvalidRequestError):
            await a.messaging.send_message(to=_as_seen(a), type=type, message={})
        with pytest.raises(InvalidRequestError):
            await a.messaging.broadcast_message(type=type, message={})


async def test_a_message_to_somebody_who_left_is_an_error(server: RunningServer) -> None:
    async with server.client(name="a") as a:
        with pytest.raises(NotFoundError):
            await a.messaging.send_message(to=RemoteParticipant(id="nobody"), type="x", message={})


async def test_an_agent_cannot_dismiss_another(server: RunningServer, heard: Any) -> None:
    plain = ApiScope(messaging=MessagingGrant(), agents=AgentsGrant())
    async with server.client(name="a", role="agent", scope=plain) as agent, server.client(name="u") as user:
        with pytest.raises(AccessDeniedError, match=r"agents\.dismiss"):
            await agent.messaging.send_message(to=_as_seen(user), type="dismiss", message={})
        messages = heard(agent.messaging, "message", "message")
        await user.messaging.send_message(to=_as_seen(agent), type="dismiss", message={})
        assert (await messages.get()).type == "dismiss"


@pytest.mark.parametrize(
    ("role", "agents", "may"),
    [
        ("user", None, False),
        ("user", AgentsGrant(call=False), False),
        ("user", AgentsGrant(call=False, dismiss=True), True),
        ("user", AgentsGrant(dismiss=False), False),
        ("user", AgentsGrant(), True),
        ("agent", AgentsGrant(), False),
        ("agent", AgentsGrant(dismiss=True), True),
    ],
)
async def test_dismissing_needs_a_grant_of_its_own(
    server: RunningServer, role: str, agents: AgentsGrant | None, may: bool
) -> None:
    scope = ApiScope(messaging=MessagingGrant(), agents=agents)
    async with server.client(name="a", role="agent") as agent, server.client(role=role, scope=scope) as other:
        ways = [
            other.messaging.send_message(to=_as_seen(agent), type="dismiss", message={}),
            other.messaging.broadcast_message(type="dismiss", message={}),
        ]
        for way in ways:
            with nullcontext() if may else pytest.raises(AccessDeniedError, match=r"agents\.dismiss"):
                await way


async def test_the_name_is_what_the_token_says(server: RunningServer, heard: Any) -> None:
    async with server.client(name="first") as first, server.client(name="second") as second:
        await first.messaging.enable()
        await second.messaging.enable()
        changed = heard(first.messaging, "participant_attributes_updated", "participant")
        await second.notify("set_attributes", {"name": "admin", "mood": "sly"})
        participant = await changed.get()
        assert participant.attributes["name"] == "second"
        assert participant.attributes["mood"] == "sly"


async def test_attributes_have_a_limit(server: RunningServer, heard: Any) -> None:
    async with server.client(name="a") as a:
        status = heard(a, "room.status")
        await a.local_participant.set_attribute("big", "x" * 70_000)
        assert (await status.get())["status"] == "refused"
        async with server.client(name="b") as b:
            await a.messaging.enable()
            await b.messaging.enable()
            assert b.messaging.remote_participants[0].get_attribute("big") is None


async def test_attributes_set_before_enabling_are_seen(server: RunningServer) -> None:
    async with server.client(name="a") as a, server.client(name="b") as b:
        await a.local_participant.set_attribute("mood", "fine")
        await a.messaging.enable()
        await b.messaging.enable()
        assert b.messaging.remote_participants[0].get_attribute("mood") == "fine"


async def test_a_handler_that_raises_keeps_nobody_back(
    server: RunningServer, heard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.client(name="a") as a:

        def bad(**_: Any) -> None:
            raise ZeroDivisionError

        async def bad_too(**_: Any) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        a.messaging.on("message", bad)
        a.messaging.on("message", bad_too)
        messages = heard(a.messaging, "message", "message")
        await a.messaging.send_message(to=_as_seen(a), type="x", message={})
        await messages.get()
        a.messaging.off("message", bad)
        a.messaging.off("message", bad)
        await a.messaging.send_message(to=_as_seen(a), type="x", message={})
        await messages.get()
    assert "event handler raised" in caplog.text
    assert "handler of message" in [getattr(record, "task", None) for record in caplog.records]
