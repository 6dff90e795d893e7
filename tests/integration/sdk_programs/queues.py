"""Every request of the queues service, in order."""

import asyncio

from lines import error_of, room_client, say


async def main() -> None:
    async with room_client() as room:
        queues = room.queues
        say(missing_send=await error_of(queues.send(name="jobs", message={}, create=False)))
        say(missing_receive=await error_of(queues.receive(name="jobs", create=False, wait=False)))
        say(missing_drain=await error_of(queues.drain(name="jobs")))
        say(empty=await queues.receive(name="jobs", create=True, wait=False))
        await queues.send(name="jobs", message={"n": 1, "text": "é"})
        await queues.send(name="jobs", message={"n": 2}, create=False)
        await queues.send(name="jobs", message="a text")
        say(listed=[queue.name for queue in await queues.list(name="", message={})])
        say(first=await queues.receive(name="jobs", wait=True))
        say(second=await queues.receive(name="jobs", wait=False))
        say(third=await queues.receive(name="jobs", wait=False))
        waiting = asyncio.create_task(queues.receive(name="jobs", wait=True))
        # Answered after the receive is parked: requests of one connection are read in order.
        await room.storage.exists(path="x")
        await queues.send(name="jobs", message={"n": 4})
        say(parked=await waiting)
        for number in range(3):
            await queues.send(name="jobs", message={"n": number})
        await queues.drain(name="jobs")
        say(drained=await queues.receive(name="jobs", wait=False))
        await queues.send(name="jobs", message={"n": 9})
        waiting = asyncio.create_task(queues.receive(name="other", wait=True))
        # The receive makes the queue, which takes its time.
        while "other" not in [queue.name for queue in await queues.list(name="", message={})]:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0)
        await queues.close(name="other")
        say(parked_on_closed=await error_of(waiting))
        await queues.close(name="jobs")
        say(left=[queue.name for queue in await queues.list(name="", message={})])


asyncio.run(main())
