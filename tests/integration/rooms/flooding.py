"""A participant without manners: sends one request as fast as it can, and reads nothing. Arguments: URL, token, type, JSON.

It runs in a process of its own, so that a test measures the server and not itself. Prints "flooding" once it does, then how
it ended.
"""

import asyncio
import json
import sys

import aiohttp

from meshhost.protocol.frames import Message, packets
from meshhost.protocol.messages import pack_message


def _cut(message_id: int, kind: str, header: dict[str, object]) -> list[bytes]:
    return list(packets(Message(message_id, kind, pack_message(header)), slice_bytes=64 * 1024))


async def main(url: str, token: str, kind: str, header: str) -> None:
    batch = [packet for number in range(1, 1001) for packet in _cut(number, kind, json.loads(header))]
    own = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=own, max_msg_size=0) as socket:
        print("flooding", flush=True)  # noqa: T201
        try:
            while True:
                for packet in batch:
                    await socket.send_bytes(packet)
        except (aiohttp.ClientError, ConnectionError) as error:
            print(f"ended: {type(error).__name__}", flush=True)  # noqa: T201


asyncio.run(main(*sys.argv[1:]))
