"""Makes each request of the REST client that a server of ours answers, and tells what came back."""

import asyncio
from typing import Any

from lines import error_of, given, say
from meshagent.api.client import Meshagent


async def rooms(client: Meshagent, project: str) -> None:
    room = await client.create_room(project_id=project, name="r1", metadata={"a": 1}, annotations={"k": "v"})
    say(created=[room.name, room.metadata, room.annotations, room.enabled])
    again = await client.create_room(project_id=project, name="r1", if_not_exists=True)
    say(same=again.id == room.id, exists=await error_of(client.create_room(project_id=project, name="r1")))
    await client.create_room(project_id=project, name="r2")
    say(listed=sorted(each.name for each in await client.list_rooms(project_id=project)))
    page = await client.list_rooms_page(project_id=project, page_size=1)
    rest = await client.list_rooms_page(project_id=project, page_size=1, continuation_token=page.continuation_token)
    say(pages=[[each.name for each in page.rooms], [each.name for each in rest.rooms]], total=page.total)
    say(
        end=rest.continuation_token,
        filtered=[each.name for each in await client.list_rooms(project_id=project, filter="2")],
    )
    await client.update_room(project_id=project, room_id=room.id, name="r1", metadata={"b": 2}, annotations={"x": "y"})
    found = await client.get_room(project_id=project, name="r1")
    say(
        updated=[found.metadata, found.annotations],
        nowhere=await error_of(client.get_room(project_id=project, name="no")),
    )
    say(status=(await client.get_room_status(project_id=project, name="r1")).status)
    connected = await client.connect_room(project_id=project, room="r1")
    say(connected=[connected.room_name, connected.project_id == project, connected.room_url.startswith("ws")])
    say(sessions=[each.room_name for each in await client.list_active_sessions(project)])
    await client.delete_room(project_id=project, room_id=(await client.get_room(project_id=project, name="r2")).id)
    say(left=[each.name for each in await client.list_rooms(project_id=project)])


async def mailboxes(client: Meshagent, project: str) -> None:
    box: dict[str, Any] = {"project_id": project, "address": "a@example.org"}
    await client.create_mailbox(**box, room="r1", queue="mail", annotations={"k": "v"})
    shown = await client.get_mailbox(**box)
    say(mailbox=[shown.address, shown.room, shown.queue, shown.public, shown.annotations])
    await client.update_mailbox(**box, room="r1", queue="other", public=True)
    say(boxes=[[each.queue, each.public] for each in await client.list_mailboxes(project_id=project)])
    page = await client.list_mailboxes_page(project_id=project, page_size=1)
    say(box_pages=[len(page.mailboxes), page.total, page.continuation_token])
    say(of_room=[each.address for each in await client.list_room_mailboxes(project_id=project, room_name="r1")])
    say(deliveries=len((await client.list_mailbox_deliveries(**box)).deliveries))
    await client.delete_mailbox(**box)
    say(no_box=await error_of(client.get_mailbox(**box)))


async def tasks(client: Meshagent, project: str) -> None:
    spec = {
        "version": "v1",
        "kind": "ScheduledTask",
        "metadata": {"name": "nightly", "annotations": {"k": "v"}},
        "schedule": "0 3 * * *",
        "queue": {"name": "jobs", "payload": {"n": 1}},
    }
    task = await client.create_scheduled_task(project_id=project, room_name="r1", spec=spec)
    [shown] = await client.list_scheduled_tasks(project_id=project)
    say(task=[shown.id == task, shown.room_name, shown.schedule, shown.queue_name, shown.payload, shown.active])
    await client.update_scheduled_task(project_id=project, task_id=task, spec=spec | {"active": False})
    say(active=[each.id for each in await client.list_scheduled_tasks(project_id=project, active=True)])
    say(runs=await client.list_scheduled_task_runs(project_id=project, task_id=task))
    await client.delete_scheduled_task(project_id=project, task_id=task)
    say(tasks=await client.list_scheduled_tasks(project_id=project))


async def others(client: Meshagent, project: str) -> None:
    say(projects=[each.id == project for each in (await client.list_projects()).projects])
    say(feeds=await error_of(client.list_feeds(project_id=project)))
    say(routes=await error_of(client.list_routes(project_id=project)))


async def main() -> None:
    async with Meshagent(base_url=given["api"], token=given["key"]) as client:
        for part in (rooms, mailboxes, tasks, others):
            try:
                await part(client, given["project"])
            except Exception as error:  # noqa: BLE001 - the test shows it
                say(**{f"{part.__name__}_failed": f"{type(error).__name__}: {error}"})


asyncio.run(asyncio.wait_for(main(), given.get("seconds", 60)))
