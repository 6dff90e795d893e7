"""Calling agents into a room, with a sender that only notes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from meshhost.errors import CallRefusedError, InvalidTokenError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import new_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantToken
from meshhost.server import services as module
from meshhost.server.config import ConfiguredService, ServicePath
from meshhost.server.participants import Participant
from meshhost.server.room import Room
from meshhost.server.services import ServiceCaller

KEY = new_api_key("11111111-2222-3333-4444-555555555555")


class _Sender:
    """Notes what is sent; raises what it was told to."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[tuple[str, dict[str, Any], str | None]] = asyncio.Queue()
        self.failures: list[Exception] = []

    async def send(self, url: str, event: str, data: dict[str, Any], *, secret: str | None) -> dict[str, Any]:
        assert event == "room.call"
        if self.failures:
            raise self.failures.pop(0)
        self.sent.put_nowait((url, data, secret))
        return {}


class _World:
    def __init__(self) -> None:
        self.sender = _Sender()
        self.room = Room(key=RoomKey(TenantId(KEY.project_id), "r"), url="ws://h/rooms/r")
        self.counted: list[str] = []
        self.slept: list[float] = []
        self.key_for: Callable[[str], Any] = lambda _: KEY

    def caller(self, *paths: ServicePath) -> ServiceCaller:
        services = [ConfiguredService(url="http://host/", paths=paths, webhook_secret="s", rooms="r*")]
        return ServiceCaller(
            self.sender,  # type: ignore[arg-type]
            services=[*services, ConfiguredService(url="http://other", paths=paths, rooms="x")],
            key_for=lambda tenant: self.key_for(tenant),  # noqa: PLW0108 - a test may change it
            call_urls=[],
            call_secret=None,
            count=self.counted.append,
        )

    def join(self, name: str, role: str = "agent") -> Participant:
        participant = Participant(name=name, role=role, scope=ApiScope(), key_id=None, expires_at=None)
        self.room.members[participant.id] = participant
        self.room.changed()
        return participant

    def leave(self, participant: Participant) -> None:
        del self.room.members[participant.id]
        self.room.changed()

    async def called(self) -> tuple[str, dict[str, Any], str | None]:
        async with asyncio.timeout(5):
            return await self.sender.sent.get()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> _World:
    own = _World()
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        own.slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", noted)
    return own


async def _run(world: _World, *paths: ServicePath, until: Callable[[], Any]) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(world.caller(*paths).keep_called(world.room))
        await until()
        keeping.cancel()


async def test_each_path_is_called_with_a_token_of_its_own(world: _World) -> None:
    async def check() -> None:
        calls = [await world.called() for _ in range(2)]
        assert [(url, secret) for url, _, secret in calls] == [("http://host/a", "s"), ("http://host/b", "s")]
        data = calls[1][1]
        assert (data["room_name"], data["room_url"], data["arguments"]) == ("r", "ws://h/rooms/r", {"x": 1})
        token = ParticipantToken.from_jwt(data["token"], token=KEY.secret)
        assert (token.name, token.role, token.grant_scope("room")) == ("bob", "agent", "r")
        assert token.get_api_grant() == ApiScope()
        assert token.extra_payload["meshhost_service"] is True

    paths = ServicePath("/a", "alice"), ServicePath("/b", "bob", ApiScope(), {"x": 1})
    await _run(world, *paths, until=check)
    assert world.counted == ["accepted", "accepted"]


async def test_an_agent_that_vanished_is_called_again_and_others_do_not_count(world: _World) -> None:
    async def check() -> None:
        await world.called()
        world.join("worker", role="user")
        stranger = world.join("stranger")
        world.leave(stranger)
        agent = world.join("worker")
        for _ in range(5):
            await asyncio.sleep(0)
        assert world.sender.sent.empty()
        world.leave(agent)
        await world.called()

    await _run(world, ServicePath("/w", "worker"), until=check)


async def test_waits_grow_and_honour_the_host(world: _World) -> None:
    world.sender.failures = [CallRefusedError("no", status=503) for _ in range(10)]
    world.sender.failures[2] = CallRefusedError("later", status=429, retry_after=1000.0)
    await _run(world, ServicePath("/w", "worker"), until=world.called)
    waits = [seconds for seconds in world.slept if seconds > 0]
    assert waits[2] == 1000.0
    for number, wait in enumerate(waits):
        bound = min(module.MAX_DELAY, module.FIRST_DELAY * 2**number)
        assert number == 2 or bound / 2 <= wait <= bound
    assert world.counted == ["refused"] * 10 + ["accepted"]


async def test_an_agent_that_stayed_long_is_called_again_at_once(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STABLE_SECONDS", -1.0)

    async def check() -> None:
        await world.called()
        world.leave(world.join("worker"))
        agent = world.join("worker")
        for _ in range(5):
            await asyncio.sleep(0)
        world.leave(agent)
        await world.called()

    await _run(world, ServicePath("/w", "worker"), until=check)
    assert set(world.slept) <= {0}


async def test_one_service_in_trouble_keeps_no_other_back(world: _World) -> None:
    def key_for(_: str) -> Any:
        raise InvalidTokenError("the project has no API key")

    async def check() -> None:
        good, world.key_for = world.key_for, key_for
        for _ in range(5):
            await asyncio.sleep(0)
        world.key_for = good
        await world.called()

    await _run(world, ServicePath("/w", "worker"), until=check)
