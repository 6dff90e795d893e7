"""Lines of an agent's work are reported together, in the background, and left out rather than waited for."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from meshhost.errors import AccessDeniedError
from meshhost.protocol.messages import ErrorResponse, JsonResponse
from meshhost.room.client import RoomClient
from meshhost.room.services.reports import log_lines
from meshhost.work_log.line import Line, Worked
from meshhost.work_log.recording import logging_work

Joined = Callable[..., AbstractAsyncContextManager[RoomClient]]
OF = Worked("jobs", "7", 1)
KEPT = JsonResponse(json={"kept": 1})
logger = logging.getLogger("my_program")


def line(text: str) -> Line:
    return Line(5.0, "INFO", "my_program", text, OF)


def texts(message: Any) -> list[str]:
    return [each["text"] for each in message.header["lines"]]


@pytest.fixture
def offering(fake: Any) -> Any:
    """A server that keeps lines."""
    fake.hello[-1][1]["meshhost"] = {"version": 1, "extensions": ["log_lines"]}
    return fake


async def test_a_server_that_keeps_no_lines_gets_none(fake: Any, joined: Joined) -> None:
    async with joined() as room:
        assert not room.log_lines.is_offered


async def test_lines_that_come_within_a_moment_go_together(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        assert room.log_lines.is_offered
        await asyncio.to_thread(room.log_lines.add, line("a"))
        room.log_lines.add(line("b"))
        report = await offering.answer(KEPT, "developer.report")
        assert texts(report) == ["a", "b"]
        first = report.header["lines"][0]
        assert (first["queue"], first["message_id"], first["attempt"], first["fields"]) == ("jobs", "7", 1, {})


async def test_long_lines_go_in_several_reports_that_a_server_takes(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        for number in range(30):
            room.log_lines.add(line(f"{number} " + "\N{ROCKET}" * 1990))
        numbers: list[str] = []
        while len(numbers) < 30:
            report = await offering.answer(KEPT, "developer.report")
            assert len(json.dumps(report.header)) < 300 * 1024
            numbers += [text.split()[0] for text in texts(report)]
        assert numbers == [str(number) for number in range(30)]


async def test_an_agent_that_logs_without_end_costs_its_own_lines(
    offering: Any, joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "_AT_ONCE", 3.0)
    monkeypatch.setattr(log_lines, "_PER_SECOND", 20.0)
    async with joined() as room:
        for number in range(10):
            if room.log_lines.may_add():
                room.log_lines.add(line(str(number)))
        assert texts(await offering.answer(KEPT, "developer.report")) == ["0", "1", "2"]
        while room.log_lines._rate.wait() > 0:  # noqa: ASYNC110 - time alone refills it
            await asyncio.sleep(0.01)
        assert room.log_lines.may_add()
        room.log_lines.add(line("later"))
        [later] = (await offering.answer(KEPT, "developer.report")).header["lines"]
        assert (later["text"], later["fields"]) == ("later", {"lines_left_out": 7})


async def test_what_waits_at_the_end_is_sent(offering: Any, joined: Joined) -> None:
    async with joined() as room:
        room.log_lines.add(line("last"))
        answering = asyncio.get_running_loop().create_task(offering.answer(KEPT, "developer.report"))
    assert texts(await answering) == ["last"]


async def test_who_may_not_write_the_log_is_not_asked_again(offering: Any, joined: Joined, until: Any) -> None:
    denied = ErrorResponse("developer.report is not allowed", code=AccessDeniedError.code)
    async with joined() as room:
        room.log_lines.add(line("a"))
        await offering.answer(denied, "developer.report")
        await until(lambda: not room.log_lines.is_offered)


async def test_what_the_reporting_itself_logs_is_not_reported(
    offering: Any, joined: Joined, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    async with joined() as room:
        real = room.send_request

        async def logged(*arguments: Any, **more: Any) -> Any:
            logger.warning("sending")
            return await real(*arguments, **more)

        monkeypatch.setattr(room, "send_request", logged)
        with logging_work(OF, room.log_lines):
            logger.warning("working")
        assert texts(await offering.answer(KEPT, "developer.report")) == ["working"]
        room.log_lines.add(line("next"))
        assert texts(await offering.answer(KEPT, "developer.report")) == ["next"]
    assert caplog.messages.count("sending") == 2
