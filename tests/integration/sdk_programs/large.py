"""Messages of several MB in both directions."""

import asyncio

from lines import given, room_client, say
from meshagent.api import RoomException

DATA = bytes(range(256)) * 4096 * 12  # 12 MiB


async def main() -> None:
    async with room_client() as room:
        handle = await room.storage.open(path="large.bin")
        await room.storage.write(handle=handle, data=DATA)
        await room.storage.close(handle=handle)
        file = await room.storage.download(path="large.bin")
        say(downloaded=file.data == DATA)
        text = "é" + "x" * 7_000_000
        await room.queues.send(name="large", message={"text": text})
        message = await room.queues.receive(name="large", wait=False)
        say(received=message == {"text": text})
        await room.messaging.enable()
        arrived = asyncio.Event()

        def on_message(message: object) -> None:
            say(attachment=message.attachment == DATA)
            arrived.set()

        room.messaging.on("message", on_message)
        await room.messaging.send_message(to=room.local_participant, type="x", message={}, attachment=DATA)
        await arrived.wait()
        over = b"x" * given["over"]
        handle = await room.storage.open(path="over.bin")
        try:
            await room.storage.write(handle=handle, data=over)
        except RoomException as error:
            say(over=str(error))
        say(lives=await room.storage.exists(path="large.bin"))


asyncio.run(main())
