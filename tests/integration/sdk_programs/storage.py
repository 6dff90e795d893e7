"""Every request of the storage service, in order."""

import asyncio
import urllib.request
from typing import Any

from lines import error_of, room_client, say


def entry(found: Any) -> Any:
    return None if found is None else [found.name, found.is_folder, found.updated_at is not None]


def fetch(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url) as answer:
        return answer.status, answer.read().hex()


async def main() -> None:
    async with room_client() as room:
        storage = room.storage
        deleted = asyncio.Event()
        own = room.local_participant.id
        storage.on("file.updated", lambda path, participant_id: say(updated=path, own=participant_id == own))
        storage.on("file.deleted", lambda path, participant_id: (say(deleted=path), deleted.set()))
        say(no_folder=await storage.list(path=".schemas"))
        handle = await storage.open(path="notes/é.bin")
        await storage.write(handle=handle, data=bytes(range(256)))
        await storage.write(handle=handle, data=b"end")
        say(before_close=await storage.exists(path="notes/é.bin"))
        await storage.close(handle=handle)
        say(
            exists=[await storage.exists(path=path) for path in ("notes/é.bin", "notes", "nothing")],
            stat=entry(await storage.stat(path="notes/é.bin")),
            folder=entry(await storage.stat(path="notes")),
            nothing=entry(await storage.stat(path="nothing")),
            root=[entry(each) for each in await storage.list(path="")],
            listed=[entry(each) for each in await storage.list(path="notes")],
        )
        say(again=await error_of(storage.open(path="notes/é.bin")))
        file = await storage.download(path="notes/é.bin")
        say(name=file.name, mime=file.mime_type, data=file.data.hex())
        url = await storage.download_url(path="notes/é.bin")
        say(fetched=await asyncio.to_thread(fetch, url))
        handle = await storage.open(path="notes/é.bin", overwrite=True)
        await storage.write(handle=handle, data=b"new")
        await storage.close(handle=handle)
        say(after=(await storage.download(path="notes/é.bin")).data.hex())
        say(written_when_closed=await error_of(storage.write(handle=handle, data=b"late")))
        say(missing=[await error_of(storage.download(path="nothing")), await error_of(storage.delete("nothing"))])
        say(outside=await error_of(storage.download(path="../x")))
        await storage.delete("notes/é.bin")
        await deleted.wait()
        say(gone=await storage.exists(path="notes/é.bin"))


asyncio.run(main())
