"""What `kill -9` does to mail: nothing is lost, and a double has the Message-ID of the first."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from doubles.smtp_sink import SmtpSink

from meshhost.app.config_file import ServerFile
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BOT = "bot@example.com"
TESTS = Path(__file__).parents[1]
KEY = new_api_key("11111111-2222-3333-4444-555555555555")
MAIL = b"From: ann@example.org\r\nTo: bot@example.com\r\nMessage-ID: <q@example.org>\r\n\r\nHello\r\n"


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A program of `doubles.mail_programs`, and the first line that it printed; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "doubles.mail_programs", *arguments),
        cwd=TESTS,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def accepted(port: str) -> bool:
    """Send the mail; whether the server said 250."""
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=int(port), start_tls=False, timeout=30)
    try:
        await client.connect()
        await client.sendmail("ann@example.org", [BOT], MAIL)
    except (aiosmtplib.SMTPException, OSError):
        return False
    finally:
        client.close()
    return True


async def test_a_server_that_is_killed_between_data_and_250_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    key, point, was_killed, stored_unsaid = encode_api_key(KEY), 0, True, 0
    points: list[int] = []
    while was_killed:
        assert point < 200, "the mail is stored with fewer statements"
        folder = str(tmp_path / f"{point}")
        async with program("receive", folder, str(point), key) as (process, port):
            said = await accepted(port)
            was_killed = not said
            if was_killed:
                async with asyncio.timeout(30):
                    assert await process.wait() == -signal.SIGKILL
        # As its sender does, which heard nothing or 250.
        file = ServerFile.model_validate({"mail": {"listen": "127.0.0.1:0"}})
        async with running_server(Path(folder), key=KEY, file=file) as server, server.client("room") as room:
            if was_killed:
                assert await accepted(str(server.server.parts.mail.port))
            found = [each async for each in room.queues.find("email")]
        assert len(found) == 1, f"killed before statement {point}"
        stored_unsaid += point == 0
        # Each of the first statements, then some of those that follow: a server that is killed costs seconds.
        points.append(point)
        point = point + 1 if point < 6 else point * 3 // 2
    assert len(points) > 3
    assert stored_unsaid


def _asked(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_an_agent_that_is_killed_between_sending_and_noting_it_sends_the_same_mail_again(tmp_path: Path) -> None:
    killed = asyncio.Event()
    async with running_server(tmp_path / "data", key=KEY) as server, SmtpSink() as sink, server.client("room") as user:
        arguments = _arguments(server, sink, tmp_path)

        async with program(*arguments) as (process, _):

            async def kill(_: Any) -> None:
                if not killed.is_set():
                    process.kill()
                    killed.set()

            sink.on_data = kill  # the mail is taken, and nobody hears the 250
            await user.queues.send("email", _message())
            await sink.received(1)
            await process.wait()
        async with program(*arguments):
            second = await sink.received(2, seconds=90)
            assert second.mail.message_id == sink.mails[0].mail.message_id
            await _until_done(user, "email.out")
        assert len(sink.mails) == 2
        assert _asked(tmp_path / "asked") == 1


async def test_an_agent_that_is_killed_before_it_sends_answers_once(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data", key=KEY) as server, SmtpSink() as sink, server.client("room") as user:
        arguments = _arguments(server, sink, tmp_path)
        saved = asyncio.Event()
        async with program(*arguments) as (process, _):
            # The question is the first mail that is saved, the answer the second.
            paths: list[str] = []

            def on_saved(path: str, participant_id: str) -> None:
                paths.append(path)
                if sum(each.startswith(".emails/ids/") for each in paths) == 2:
                    process.kill()
                    saved.set()

            user.storage.on("file.updated", on_saved)
            await user.queues.send("email", _message())
            async with asyncio.timeout(60):
                await saved.wait()
            await process.wait()
        async with program(*arguments):
            await _until_done(user, "email")
            await sink.received(1, seconds=90)
            await _until_done(user, "email.out")
        assert len({each.mail.message_id for each in sink.mails}) == 1
        assert _asked(tmp_path / "asked") == 1


def _arguments(server: RunningServer, sink: SmtpSink, folder: Path) -> tuple[str, ...]:
    token = server.token("room", name="bot", role="agent")
    return ("answer", server.server.room_url("room"), token, str(sink.port), str(folder / "asked"))


def _message() -> dict[str, str]:
    import base64

    return {"base64": base64.b64encode(MAIL).decode()}


async def _until_done(room: Any, queue: str) -> None:
    async with asyncio.timeout(90):
        # A room sends no event for it.
        while not [each async for each in room.queues.find(queue, states=["done"])]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
