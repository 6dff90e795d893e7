"""Calling agents into a room, with a sender that only notes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError, InvalidTokenError
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import new_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantToken
from meshhost.server.calling.caller import ServiceCaller
from meshhost.server.calling.records import MAX_ATTEMPTS, UrlRotation
from meshhost.server.config import CallTimes, ConfiguredService, ServicePath
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.testing.clock import FakeClock

KEY = new_api_key("11111111-2222-3333-4444-555555555555")
TIMES = CallTimes()


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


class _Clock(FakeClock):
    """Passes as soon as somebody sleeps, and notes the sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.advance(seconds)


class _World:
    def __init__(self) -> None:
        self.sender = _Sender()
        self.room = Room(key=RoomKey(TenantId(KEY.project_id), "r"), url="ws://h/rooms/r")
        self.counted: list[str] = []
        self.clock = _Clock()
        self.key_for: Callable[[str], Any] = lambda _: KEY

    def caller(self, *paths: ServicePath, other_urls: Sequence[str] = (), times: CallTimes = TIMES) -> ServiceCaller:
        services = [
            ConfiguredService(url="http://host/", paths=paths, webhook_secret="s", rooms="r*", other_urls=other_urls)
        ]
        return ServiceCaller(
            self.sender,  # type: ignore[arg-type]
            services=[*services, ConfiguredService(url="http://other", paths=paths, rooms="x")],
            key_for=lambda tenant, _: self.key_for(tenant),
            call_urls=[],
            call_secret=None,
            tenant_calls=None,  # type: ignore[arg-type]
            count=self.counted.append,
            times=times,
            clock=self.clock,
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
def world() -> _World:
    return _World()


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
    waits = [seconds for seconds in world.clock.slept if seconds > 0]
    assert waits[2] == 1000.0
    for number, wait in enumerate(waits):
        bound = min(TIMES.max_delay, TIMES.first_delay * 2**number)
        assert number == 2 or bound / 2 <= wait <= bound
    assert world.counted == ["refused"] * 10 + ["accepted"]


async def test_an_agent_that_stayed_long_is_called_again_at_once(world: _World) -> None:
    async def check() -> None:
        await world.called()
        world.leave(world.join("worker"))
        agent = world.join("worker")
        await world.clock.advance(TIMES.stable + 1)
        world.leave(agent)
        await world.called()

    await _run(world, ServicePath("/w", "worker"), until=check)
    assert set(world.clock.slept) <= {0}


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


@asynccontextmanager
async def _kept(caller: ServiceCaller, room: Room) -> AsyncIterator[None]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(caller.keep_called(room))
        yield
        keeping.cancel()


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_became_of_a_call_is_kept_while_the_room_is_open(world: _World) -> None:
    caller = world.caller(ServicePath("/w", "worker"))
    assert caller.calls(world.room) == []
    async with _kept(caller, world.room):
        await world.called()
        await _turns()
        [call] = caller.calls(world.room)
        assert (call["url"], call["path"], call["identity"]) == ("http://host/w", "/w", "worker")
        assert (call["outcome"], call["is_present"], call["joined_at"], call["total"]) == ("accepted", False, None, 1)
        world.join("worker")
        await _turns()
        [call] = caller.calls(world.room)
        assert (call["outcome"], call["is_present"], call["next_call_at"]) == ("joined", True, None)
        assert call["joined_at"] >= call["called_at"]
        assert [attempt["outcome"] for attempt in call["attempts"]] == ["joined"]
    assert caller.calls(world.room) == []


async def test_a_room_that_began_again_keeps_its_own_records(world: _World) -> None:
    caller = world.caller(ServicePath("/w", "worker"))
    next_life = Room(key=world.room.key, url=world.room.url)
    async with _kept(caller, next_life):
        await world.called()
        async with _kept(caller, world.room):
            await world.called()
        assert len(caller.calls(next_life)) == 1


async def test_the_next_host_is_called_when_one_fails_and_the_one_that_works_is_kept(world: _World) -> None:
    world.sender.failures = [CallRefusedError("draining", status=503, retry_after=1000.0), _unreachable()]
    caller = world.caller(ServicePath("/w", "worker"), other_urls=["http://u:hush@b/", "http://c"])
    async with _kept(caller, world.room):
        assert (await world.called())[0] == "http://c/w"
        agent = world.join("worker")
        await _turns()
        world.leave(agent)
        assert (await world.called())[0] == "http://c/w"
        await _turns()
        [call] = caller.calls(world.room)
    attempts = [(one["url"], one["outcome"], one["status"], one["error"]) for one in call["attempts"]]
    assert attempts == [
        ("http://host/w", "refused", 503, "draining"),
        ("http://b/w", "unreachable", None, "no way to http://b/w as it stands"),
        ("http://c/w", "joined", None, None),
        ("http://c/w", "accepted", None, None),
    ]
    # The others were not kept waiting by the first, and each try came after a pause.
    assert all(0 < wait < 1000 for wait in world.clock.slept if wait)
    assert len([wait for wait in world.clock.slept if wait]) == 3


def _unreachable() -> CallRefusedError:
    error = CallRefusedError("no way to http://u:hush@b/w as it stands", status=503)
    error.__context__ = OSError()
    return error


async def test_a_call_that_nobody_joined_after_goes_to_the_next_host(world: _World) -> None:
    caller = world.caller(ServicePath("/w", "worker"), other_urls=["http://b"], times=CallTimes(join=0.0))
    async with _kept(caller, world.room):
        assert [(await world.called())[0] for _ in range(3)] == ["http://host/w", "http://b/w", "http://host/w"]
        assert caller.calls(world.room)[0]["attempts"][0]["outcome"] == "not_joined"


async def test_only_the_last_attempts_are_kept_but_all_are_counted(world: _World) -> None:
    world.sender.failures = [CallRefusedError("x" * 5000, status=500) for _ in range(MAX_ATTEMPTS + 5)]
    caller = world.caller(ServicePath("/w", "worker"))
    async with _kept(caller, world.room):
        await world.called()
        await _turns()
        [call] = caller.calls(world.room)
    assert (len(call["attempts"]), call["total"]) == (MAX_ATTEMPTS, MAX_ATTEMPTS + 6)
    assert len(call["attempts"][0]["error"]) == 1000


async def test_an_unsigned_call_says_so_and_when_the_next_is_due(world: _World) -> None:
    def key_for(_: str) -> Any:
        raise InvalidTokenError("the project has no API key")

    world.key_for = key_for
    caller = world.caller(ServicePath("/w", "worker"))
    async with _kept(caller, world.room):
        await _turns()
        [call] = caller.calls(world.room)
    assert (call["outcome"], call["error"]) == ("unsigned", "the project has no API key")
    assert call["next_call_at"] > call["called_at"]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=30), st.integers(1, 4))
def test_no_host_is_called_before_it_wants_to_be(failures: list[tuple[float, float]], hosts: int) -> None:
    urls = [f"http://h{number}" for number in range(hosts)]
    service = ConfiguredService(url=urls[0], other_urls=urls[1:], paths=[])
    rotation, now, free_at = UrlRotation(service, ServicePath("/p", "i")), 0.0, dict.fromkeys(urls, 0.0)
    for later, retry_after in failures:
        free_at[rotation.current.removesuffix("/p")] = now + retry_after
        wait = rotation.failed(now, retry_after)
        assert now + wait == pytest.approx(max(now, min(free_at.values())))
        assert now + wait >= free_at[rotation.current.removesuffix("/p")] - 1e-9
        now += wait + later
