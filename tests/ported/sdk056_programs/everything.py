"""Makes one request of each kind that a room of ours answers, and tells what came back."""

import asyncio
import json

from lines import error_of, given, room_client, say
from meshagent.api.schema import ChildProperty, ElementType, MeshSchema, ValueProperty

TEXT = ValueProperty(name="text", type="string", description="")
NOTES = ChildProperty(name="notes", child_tag_names=["note"])
SCHEMA = MeshSchema(
    root_tag_name="page",
    elements=[
        ElementType(tag_name="page", description="", properties=[NOTES]),
        ElementType(tag_name="note", description="", properties=[TEXT]),
    ],
)


async def queues(room) -> None:
    await room.queues.open(name="jobs")
    await room.queues.send(name="jobs", message={"n": 1})
    await room.queues.send(name="jobs", message={"n": 2})
    say(listed={queue.name: queue.size for queue in await room.queues.list()})
    say(received=await room.queues.receive(name="jobs", wait=True))
    await room.queues.drain(name="jobs")
    say(drained=await room.queues.receive(name="jobs", wait=False))
    await room.queues.close(name="jobs")


async def storage(room) -> None:
    data = bytes(range(256)) * 4096
    await room.storage.upload(path="a/b.bin", data=data)
    await room.storage.upload(path="a/empty.txt", data=b"")

    async def pieces():
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    await room.storage.upload_stream(path="a/streamed.bin", chunks=pieces(), overwrite=True)
    say(files=sorted([entry.name, entry.size] for entry in await room.storage.list(path="a")))
    whole = [(await room.storage.download(path=path)).data == data for path in ("a/b.bin", "a/streamed.bin")]
    empty = await room.storage.download(path="a/empty.txt")
    say(whole=whole, empty=[len(empty.data), empty.name, empty.mime_type])
    found = await room.storage.stat(path="a/b.bin")
    say(stat=[found.name, found.size, found.is_folder], nowhere=await room.storage.stat(path="nowhere"))
    say(refused=await error_of(room.storage.upload(path="a/b.bin", data=b"")))
    say(missing=await error_of(room.storage.download(path="nowhere")))
    say(url=(await room.storage.download_url(path="a/b.bin"))[:7])
    moved = asyncio.get_running_loop().create_future()
    room.storage.on("file.moved", lambda **event: moved.done() or moved.set_result(event["destination_path"]))
    await room.storage.move(source_path="a/b.bin", destination_path="c/d/moved.bin")
    say(moved=[await moved, await room.storage.exists(path="a/b.bin")])
    say(in_the_way=await error_of(room.storage.move(source_path="a/empty.txt", destination_path="c/d/moved.bin")))
    await room.storage.delete("c/d/moved.bin")
    await room.storage.delete("a", recursive=True)
    say(exists=[await room.storage.exists(path=path) for path in ("a/b.bin", "a/empty.txt", "c/d/moved.bin")])


async def documents(room) -> None:
    document = await room.sync.open(path="x.page", create=True, schema=SCHEMA)
    await document.synchronized
    document.root.append_child("note", {"text": "from 0.56"})
    await asyncio.sleep(0.2)
    await room.sync.close(path="x.page")
    await room.sync.create(path="y.page", json={"page": {"notes": []}}, schema=SCHEMA)
    say(described=(await room.sync.describe(path="y.page"))["json"])
    say(
        document=document.root.to_json(),
        stored=json.loads((await room.storage.download(path=".schemas/page.json")).data) != {},
    )


async def others(room) -> None:
    say(log=await error_of(room.developer.log(type="note", data={"a": 1})))
    logs = room.developer.logs()
    first = asyncio.create_task(anext(logs))
    while not first.done():
        room.developer.info("hello", extra={"n": 1})
        await asyncio.sleep(0.05)
    say(logged=[first.result().type, first.result().data])
    await logs.aclose()
    say(nobody=await error_of(room.invoke(toolkit="none", tool="none", input={})))
    say(absent=await error_of(room.datasets.list_tables()))
    say(called=await error_of(room.call(name="x", url="http://example.org/x", arguments={})))


async def main() -> None:
    async with room_client() as room:
        say(name=room.local_participant.get_attribute("name"))
        for part in (queues, storage, documents, others):
            await part(room)


asyncio.run(asyncio.wait_for(main(), given.get("seconds", 60)))
