"""Commands against a real room server, in this process. The command runs in a thread, since it has a loop of its own."""

import asyncio
import gc
import json
import os
import signal
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import meshhost
from meshhost.app.embedded import ServerOptions
from meshhost.cli import serving
from meshhost.cli.connect import ServerAccess, get_json, joined_room, server_access
from meshhost.cli.main import run
from meshhost.errors import RoomError
from meshhost.testing.server import RunningServer

Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Command:
    async def run_command(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, arguments)
        return code, *capsys.readouterr()

    return run_command


async def test_a_program_and_a_command_meet_in_a_room(server: RunningServer, command: Command) -> None:
    async with meshhost.connect() as room:
        await room.queues.send(name="jobs", message={"n": 1})
        _, out, _ = await command("queue", "list", "--json")

    assert [queue["name"] for queue in json.loads(out)] == ["jobs"]


async def test_a_program_joins_a_room_with_the_commands_access_to_a_server(server: RunningServer) -> None:
    async with joined_room(server_access(), "demo") as room:
        assert room.local_participant.get_attribute("name") == "cli"
        await room.queues.send(name="jobs", message={"n": 1})


async def test_who_has_no_operators_key_is_told_where_it_is(server: RunningServer, command: Command) -> None:
    code, _, said = await command("tenant", "list")
    assert code == 1
    assert (
        "this needs the operator's key; no operator's key: run this as the user who runs `meshhost room serve`" in said
    )


async def test_a_command_joins_with_a_ready_made_token(
    server: RunningServer, command: Command, environment: pytest.MonkeyPatch
) -> None:
    _, out, _ = await command("token", "create", "--name", "holder", "--json")
    environment.delenv("MESHHOST_API_KEY")
    environment.setenv("MESHHOST_TOKEN", json.loads(out)["token"])

    assert await command("queue", "send", "--queue", "jobs", "--json", "1") == (
        0,
        "1\n",
        "meshhost: created queue jobs\n",
    )
    code, _, said = await command("queue", "send", "--queue", "jobs", "--json", "1", "--room", "elsewhere")
    assert code == 1
    assert "MESHHOST_TOKEN" in said or "elsewhere" in said


async def test_a_large_file_travels_in_chunks(server: RunningServer, command: Command, tmp_path: Path) -> None:
    data = os.urandom(2 * 1024 * 1024 + 7)
    (tmp_path / "big").write_bytes(data)

    assert await command("storage", "cp", "big", "room:folder/") == (0, f"room:folder/big ({len(data)} bytes)\n", "")
    assert (await command("storage", "cp", "room:folder/big", "room:"))[0] == 0
    assert (await command("storage", "cp", "room:folder", "room:big"))[0] == 1
    assert (await command("storage", "cp", "room:big", "room:folder"))[1].startswith("room:folder/big ")
    assert (await command("storage", "cp", "room:big", "copy"))[0] == 0

    assert (tmp_path / "copy").read_bytes() == data


async def test_a_file_is_written_to_standard_output(server: RunningServer, command: Command, tmp_path: Path) -> None:
    async with server.client("demo") as room:
        await room.storage.upload(path="poem.txt", data=b"roses\n")

    assert await command("storage", "cat", "room:poem.txt") == (0, "roses\n", "")
    assert (await command("storage", "ls", "poem.txt"))[1].startswith("poem.txt\t")
    assert (await command("storage", "ls", "nowhere"))[0] == 1


async def test_a_folder_is_listed_page_by_page(
    server: RunningServer, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshhost.cli.commands.storage._PAGE", 2)
    async with meshhost.connect() as room:
        for name in ("b/x", "a", "b-c", "d", "e"):
            await room.storage.upload(path=f"many/{name}", data=b"1")

    async def names(*options: str) -> list[str]:
        _, output, _ = await command("storage", "ls", "many", *options)
        return [line.partition("\t")[0] for line in output.splitlines()]

    assert await names() == ["a", "b-c", "b/", "d", "e"]
    assert await names("--limit", "3") == ["a", "b-c", "b/"]
    assert await names("--prefix", "b") == ["b/", "b-c"]
    assert (await command("storage", "ls", "many", "--prefix", "z"))[2].startswith("nothing here")
    _, output, _ = await command("storage", "ls", "many", "--limit", "4", "--json")
    assert [entry["name"] for entry in json.loads(output)] == ["a", "b", "b-c", "d"]


async def test_a_copy_replaces_no_device_and_nothing_it_may_not(
    server: RunningServer, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("new")

    assert (await command("storage", "cp", "a", "room:"))[0] == 0
    assert (await command("storage", "cp", "room:a", "/dev/null"))[0] == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)  # noqa: PTH116 - not a copy of `a`
    code, _, error = await command("storage", "cp", "-n", "room:a", ".")
    assert (code, "exists" in error) == (1, True)
    assert (await command("storage", "cp", "a", "b"))[0] == 2


async def test_a_download_that_breaks_off_leaves_the_old_file(
    server: RunningServer, command: Command, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("old")
    async with server.client("demo") as room:
        await room.storage.upload(path="a", data=b"new")

    async def broken_url(*_: Any, **__: Any) -> str:
        return f"{server.url}/files/nothing"

    environment.setattr("meshhost.room.services.storage.StorageClient.download_url", broken_url)
    assert "refused the download" in (await command("storage", "cp", "room:a", "a"))[2]
    environment.setattr(
        "meshhost.room.services.storage.StorageClient.download_url", lambda *_, **__: _value("http://127.0.0.1:1")
    )
    assert "the download of 'a' failed" in (await command("storage", "cp", "room:a", "a"))[2]

    assert (tmp_path / "a").read_text() == "old"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".a")]  # noqa: PTH208 - names only


async def test_rooms_are_listed_with_who_is_there(server: RunningServer, command: Command) -> None:
    async with server.client("demo", name="bob"):
        assert await command("room", "list") == (0, "demo\topen\tbob (user)\n", "")
        code, out, _ = await command("room", "list", "--json")

    assert (code, json.loads(out)[0]["participants"]) == (0, [{"name": "bob", "role": "user"}])


async def test_a_message_reaches_a_participant_by_its_name(server: RunningServer, command: Command) -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()

    def got_message(message: Any) -> None:
        got.put_nowait(message)

    async with server.client("demo", name="bob") as bob:
        bob.messaging.on("message", got_message)
        await bob.messaging.enable()

        code, out, _ = await command("messaging", "list", "--json")
        assert (code, json.loads(out)[0]["attributes"]["name"]) == (0, "bob")
        sent = await command("messaging", "send", "--to", "bob", "--type", "greeting", "--message", '{"a": 1}')
        message = await asyncio.wait_for(got.get(), 5)

    assert sent == (0, "sent to bob\n", "")
    assert (message.type, message.message) == ("greeting", {"a": 1})


async def test_a_received_message_is_gone(server: RunningServer, command: Command) -> None:
    await command("queue", "send", "--queue", "q", "--json", '{"a": 1}')

    assert await command("queue", "receive", "--queue", "q") == (0, '{"a": 1}\n', "")
    async with server.client("demo") as room:
        assert (await room.queues.list())[0].leased == 0
    assert (await command("queue", "receive", "--queue", "q", "--timeout", "0.05"))[0] == 1


async def test_a_message_that_could_not_be_printed_comes_back(
    server: RunningServer, command: Command, environment: pytest.MonkeyPatch
) -> None:
    await command("queue", "send", "--queue", "q", "--json", '"kept"')

    def broken(_: object) -> None:
        raise BrokenPipeError

    with environment.context() as patch:
        patch.setattr("meshhost.cli.output.print_json", broken)
        code, _, error = await command("queue", "receive", "--queue", "q")

    assert (code, error) == (1, "")
    assert await command("queue", "receive", "--queue", "q", "--timeout", "5") == (0, '"kept"\n', "")


async def test_a_foreign_key_is_told_what_to_check(
    server: RunningServer, command: Command, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("MESHHOST_API_KEY")
    await command("setup")

    for arguments in (("queue", "list"), ("room", "list")):
        code, _, error = await command(*arguments)
        assert (code, error.count("\n")) == (1, 1)
        assert "MESHHOST_API_KEY" in error


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ws://user:secret@127.0.0.1:1"])
async def test_a_server_out_of_reach_is_named(
    url: str, server: RunningServer, command: Command, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("MESHHOST_API_URL", url)

    for arguments in (("queue", "list"), ("room", "list")):
        code, _, error = await command(*arguments)
        assert code == 1
        assert error.startswith("meshhost: cannot reach the room server at http://127.0.0.1:1: ")
        assert "start one with `meshhost room serve`" in error
        assert "connection refused" in error
        assert "secret" not in error


async def test_what_is_not_a_room_server_is_said(server: RunningServer) -> None:
    access = ServerAccess(server.url, "p", server.api_key)

    with pytest.raises(RoomError, match="is it a room server"):
        await asyncio.to_thread(get_json, access, "/metrics")


async def test_a_server_runs_until_it_is_told_to_stop(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ready = asyncio.Event()
    said: list[str] = []
    frozen: list[int] = []
    gc.unfreeze()
    environment.setattr(
        serving, "print_line", lambda text: (said.append(text), frozen.append(gc.get_freeze_count()), ready.set())
    )

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serving._serve(ServerOptions(port=0, data_dir=tmp_path / "data"), as_json=False))
        await ready.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    assert said[0].startswith("room server ready at http://127.0.0.1:")
    assert frozen[0] > 10_000  # no collection looks at what was loaded
    gc.unfreeze()


async def _value(value: str) -> str:
    return value
