"""The reference of newer clients misses no operation that the real ones have."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from doubles.newer_client import newer_client
from doubles.talking import TalkingPrograms

from docs.generate.clients import OPERATIONS, TOOLKITS
from meshhost.server.wire.sdk056 import SDK_056, names
from meshhost.testing.server import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


async def _offered(programs: TalkingPrograms) -> Mapping[str, Sequence[str]]:
    async with programs.run("operations", None) as program:
        line: dict[str, Any] = await program.line()
    return {**line["clients"], "room": line["room"]}


@pytest.mark.parametrize(("language", "fixture"), [("py", "newer"), ("js", "javascript")])
async def test_every_operation_of_the_client_is_in_the_table(
    language: str, fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    offered = await _offered(request.getfixturevalue(fixture))
    assert offered.keys() <= OPERATIONS.keys() | TOOLKITS.keys()
    for client, offers in OPERATIONS.items():
        expected = {name for name, offer in offers.items() if language in offer.clients}
        assert {_snake(name) for name in offered.get(client, ())} == expected, client


async def test_toolkits_that_are_not_there_are_refused_by_name(server: RunningServer) -> None:
    async with newer_client(server) as client:
        for toolkit in sorted(names.ABSENT):
            for arguments in ({}, {"type": "control", "method": "open"}):
                header = (await client.answer_of(toolkit, "list", arguments, call=toolkit)).header
                assert (header["code"], header["text"]) == (1003, f"this room server has no toolkit {toolkit!r}")


async def test_every_built_in_tool_is_one_of_the_servers_operations(server: RunningServer) -> None:
    offered = SDK_056.operations(server.server.parts.services.operations())
    operations = {each for tools in names.TOOLKITS.values() for each in tools.values()}
    assert operations - offered.keys() <= {"livekit.connect"}
