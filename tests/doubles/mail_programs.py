"""Programs of mail that tests kill: a room server that takes mail, and an agent that answers.

`python -m doubles.mail_programs receive FOLDER POINT` runs a room server with its mail port, prints the port, and kills itself
before the POINT-th statement to a database that follows the end of a mail; 0: when the mail is stored and before 250 is said.
`python -m doubles.mail_programs answer URL TOKEN SMTP_PORT FILE` joins a room as an agent that answers mail, and writes a line
to FILE each time that its model is asked.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from doubles.fault_points import count_statements
from meshhost.agents.mail import MailWorker, SmtpConfiguration
from meshhost.app.config_file import ServerFile
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.room.client import RoomClient
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import running_server
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.triggers.mailboxes import Mailboxes, MailboxSpec

BOT = "bot@example.com"


class _Killer:
    left: int | None = None

    def before(self, _: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def receive(folder: str, point: str, key: str) -> None:
    killer, deliver = _Killer(), Mailboxes.deliver

    async def armed(self: Mailboxes, *arguments: Any, **named: Any) -> int:
        killer.left = int(point) if int(point) > 0 else None
        stored = await deliver(self, *arguments, **named)
        if point == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        killer.left = None
        return stored

    count_statements(killer.before)
    Mailboxes.deliver = armed  # type: ignore[method-assign]
    file = ServerFile.model_validate({"mail": {"listen": "127.0.0.1:0"}})
    async with running_server(Path(folder), file=file, key=parse_api_key(key)) as running:
        boxes = Mailboxes(running.server.engines.triggers, running.server.engines.queues)
        if await boxes.find(BOT) is None:
            room = RoomKey(TenantId(running.key.project_id), "room")
            await boxes.create(room, BOT, MailboxSpec(queue="email"))
        sys.stdout.write(f"{running.server.parts.mail.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def answer(url: str, token: str, port: str, file: str) -> None:
    def think(_: Any) -> str:
        with Path(file).open("a") as asked:
            asked.write("asked\n")
        return "the answer"

    smtp = SmtpConfiguration(hostname="127.0.0.1", port=int(port), username="u", password="p")
    worker = MailWorker(name="bot", email_address=BOT, smtp=smtp, llm_adapter=ScriptedLLM(default=think))
    worker.retry_seconds = 0.05
    async with RoomClient(protocol=WebSocketClientProtocol(url=url, token=token)) as room:
        await worker.start(room=room)
        sys.stdout.write("started\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run({"receive": receive, "answer": answer}[sys.argv[1]](*sys.argv[2:]))  # type: ignore[operator]
