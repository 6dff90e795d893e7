"""REST and command line of the unmodified SDK 0.56, pointed at a room server of ours."""

import asyncio
from typing import Any

import pytest
from doubles.generations import our_guest
from doubles.talking import TalkingPrograms

from meshhost.testing.server import RunningServer

# Making the environments takes a while, once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TASK = "version: v1\nkind: ScheduledTask\nschedule: '0 3 * * *'\nqueue:\n  name: jobs\n  payload: {n: 1}\n"


async def test_every_rest_call_that_is_offered_is_answered(newer: TalkingPrograms, server: RunningServer) -> None:
    given = {"api": server.url, "key": server.api_key, "project": server.key.project_id}
    seen = await newer.lines("rest", server, **given)
    assert not [name for name in seen if name.endswith("_failed")], seen
    assert seen["created"] == ["r1", {"a": 1}, {"k": "v"}, True]
    assert (seen["same"], seen["exists"][1][:10]) == (True, "Status=409")
    assert (seen["listed"], seen["pages"], seen["total"]) == (["r1", "r2"], [["r1"], ["r2"]], 2)
    assert (seen["end"], seen["filtered"]) == (None, ["r2"])
    assert (seen["updated"], seen["nowhere"][1]) == ([{"b": 2}, {"x": "y"}], "room not found")
    assert (seen["status"], seen["connected"], seen["left"]) == ("Unallocated", ["r1", True, True], ["r1"])
    assert seen["mailbox"] == ["a@example.org", "r1", "mail", False, {"k": "v"}]
    assert (seen["boxes"], seen["box_pages"], seen["of_room"]) == ([["other", True]], [1, 1, None], ["a@example.org"])
    assert "no mailbox" in seen["no_box"][1]
    assert seen["task"] == [True, "r1", "0 3 * * *", "jobs", {"n": 1}, True]
    assert (seen["active"], seen["runs"], seen["tasks"]) == ([], [], [])
    assert "meshhost does not offer GET feeds" in seen["feeds"][1]
    assert "meshhost does not offer GET routes" in seen["routes"][1]


async def test_the_command_line_works_in_our_rooms(newer_cli: Any, server: RunningServer) -> None:
    cli, room = newer_cli, ("--room", "room")
    cli.environment["MESHAGENT_PROJECT_ID"] = cli.project
    (cli.home / "task.yaml").write_text(TASK)

    async def run(*arguments: str) -> str:
        said = await cli(*arguments)
        assert said.code == 0, (arguments, said)
        return str(said.out)

    async with our_guest(server):
        assert '"name": "r9"' in await run("rooms", "create", "r9", "--no-owner")
        assert "r9" in await run("rooms", "list")
        await run("room", "queue", "send", *room, "--queue", "jobs", "--json", '{"n": 1}')
        # Side by side: each starts for seconds.
        size, queues, people, toolkits = await asyncio.gather(
            run("room", "queue", "size", *room, "--queue", "jobs"),
            run("room", "queue", "list", *room),
            run("room", "messaging", "list", *room),
            run("room", "agent", "list-toolkits", *room),
        )
        assert size.strip() == "1"
        assert "jobs" in queues
        assert "ours" in people
        assert "shout" in toolkits
        received, said = await asyncio.gather(
            run("room", "queue", "receive", *room, "--queue", "jobs"),
            run(
                *("room", "agent", "invoke-tool", *room, "--toolkit", "ours", "--tool", "shout"),
                *("--arguments", '{"text": "hi"}'),
            ),
        )
        assert "{'n': 1}" in received
        assert "HI" in said
        await run("mailbox", "create", "--address", "a@example.org", "--room", "r9", "--queue", "mail")
        await run("scheduled-task", "add", "--room", "r9", "--file", "task.yaml")
        boxes, tasks = await asyncio.gather(run("mailbox", "list"), run("scheduled-task", "list"))
        assert "a@example.org" in boxes
        assert "0 3 * * *" in tasks
