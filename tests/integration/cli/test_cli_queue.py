"""`meshhost queue` against a real room server, in this process. Commands run in threads, since they have loops of their own."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import meshhost
from meshhost.cli.commands.queue import checks, lines
from meshhost.cli.main import run
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.room.client import RoomClient
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.testing.server import RunningServer


class Command:
    """Runs `meshhost queue …` and says what came of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, ["queue", *arguments])
        return code, *self._capsys.readouterr()

    async def out(self, *arguments: str) -> str:
        """What a command that must succeed prints."""
        code, out, err = await self(*arguments)
        assert code == 0, err
        return out.rstrip("\n")

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.out(*arguments, "--json"))

    async def error(self, *arguments: str, code: int = 1) -> str:
        """The one line with which a command must fail."""
        found, _, err = await self(*arguments)
        assert found == code, err
        return err.removeprefix("meshhost: ").removesuffix("\n")


@pytest.fixture
def queue(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, server: RunningServer) -> Command:
    return Command(capsys)


@pytest.fixture
async def room(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with meshhost.connect() as client:
        yield client


Terminal = Callable[[str], None]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let standard input be a terminal at which this is typed."""

    class _Typed(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda text: monkeypatch.setattr("sys.stdin", _Typed(text))


async def in_background(call: Awaitable[Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(call)


# --- send


async def test_options_go_with_a_message(queue: Command, room: RoomClient) -> None:
    common = ["send", "--queue", "jobs", "--text", "hello"]
    sent = await queue.out(*common, "--priority", "7", "--key", "k", "--ttl", "1d", "--id", "mine")
    again = await queue.out(*common, "--id", "mine")
    record = await room.queues.get("jobs", sent)

    assert again == sent
    assert record is not None
    assert (record.message, record.priority, record.key, record.state) == ("hello", 7, "k", "ready")
    assert record.expires_at is not None
    assert round(record.expires_at - record.sent_at) == 86400


@pytest.mark.parametrize("option", [["--delay", "10m"], ["--at", "2099-01-01T08:00"]])
async def test_a_message_may_be_for_later(option: list[str], queue: Command, room: RoomClient) -> None:
    if "--at" in option:
        assert "within" in await queue.error("send", "--queue", "jobs", "--text", "x", *option)
        return
    sent = await queue.out("send", "--queue", "jobs", "--text", "x", *option)
    record = await room.queues.get("jobs", sent)
    assert record is not None
    assert record.state == "delayed"
    assert record.due_at is not None
    assert round(record.due_at - record.sent_at) == 600


async def test_sending_says_when_it_makes_the_queue(queue: Command) -> None:
    assert await queue("send", "--queue", "jobs", "--json", "1") == (0, "1\n", "meshhost: created queue jobs\n")
    assert await queue("send", "--queue", "jobs", "--json", "1") == (0, "2\n", "")


async def test_each_line_is_sent_once_however_often_the_file_is(
    queue: Command, room: RoomClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH", 2)
    file = tmp_path / "jobs.jsonl"
    file.write_text("".join(f"{number}\n" for number in range(5)))
    command = ["send", "--queue", "jobs", "--file", str(file)]

    assert await queue.out(*command) == "5 messages sent to queue jobs"
    assert await queue.out(*command) == "0 messages sent to queue jobs; 5 were sent before"
    file.write_text("".join(f"{number}\n" for number in range(6)))
    assert await queue.out(*command) == "1 message sent to queue jobs; 5 were sent before"
    await room.queues.cancel("jobs", "6")
    file.write_text("".join(f"{number}\n" for number in range(5)))
    assert [each.message for each in await room.queues.peek("jobs", limit=9)] == [0, 1, 2, 3, 4]
    assert await queue.out(*command, "--id-prefix", "again", "--quiet") == ""
    assert len(await room.queues.peek("jobs", limit=50)) == 10


async def test_lines_come_from_standard_input(
    queue: Command, room: RoomClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "input").write_bytes(b'{"message": 1}\n{"message": 2, "priority": 5}\n')
    with (tmp_path / "input").open("rb") as stream:
        monkeypatch.setattr("meshhost.cli.commands.queue.sending.STANDARD_INPUT", stream.fileno())
        assert await queue.out("send", "--queue", "q", "-f", "-", "--with-options") == "2 messages sent to queue q"
    assert [each.message for each in await room.queues.peek("q", limit=9)] == [2, 1]


async def test_a_wrong_line_is_named_and_the_corrected_file_completes_it(
    queue: Command, room: RoomClient, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text("1\n2\n{\n4\n")
    said = await queue.error("send", "--queue", "q", "--file", str(file))
    file.write_text("1\n2\n3\n4\n")
    await queue.out("send", "--queue", "q", "--file", str(file))

    assert "line 3: not JSON: " in said
    assert "the 2 messages before it are stored, and the same command sends the rest" in said
    assert [each.message for each in await room.queues.peek("q", limit=9)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"message": 1, "ttl": 0}', "line 2: ttl: Input should be greater than 0"),
        ('{"message": 1, "at": 1, "delay": 1}', "line 2: at: expected `delay` or `at`, not both"),
        ('{"message": 1, "at": "soon"}', "line 2: at: "),
    ],
)
async def test_a_line_that_the_server_refuses_is_named(line: str, said: str, queue: Command, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(f'{{"message": 1}}\n{line}\n')
    assert said in await queue.error("send", "--queue", "q", "--file", str(file), "--with-options")


async def test_a_line_that_is_too_large_is_named(queue: Command, room: RoomClient, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(f'1\n"{"x" * 8_400_000}"\n3\n')
    said = await queue.error("send", "--queue", "q", "--file", str(file))
    assert "line 2: " in said
    assert "the message before it is stored" in said


async def test_a_full_queue_refuses_the_rest_of_a_file(
    queue: Command, room: RoomClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH", 2)
    await queue.out("configure", "--queue", "q", "--create", "--max-depth", "3")
    (tmp_path / "jobs.jsonl").write_text("1\n2\n3\n4\n")
    said = await queue.error("send", "--queue", "q", "--file", "jobs.jsonl")
    assert "is full" in said
    assert "the 2 messages before it are stored" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text", "x", "--id-prefix", "p"], "for the lines of a file"),
        (["--text", "x", "--delay", "1s", "--at", "2026-12-01"], "give --delay or --at"),
        (["--file", "jobs.jsonl", "--wait"], "for one message"),
        (["--file", "jobs.jsonl", "--id", "x"], "for one message"),
        (["--text", "x", "--json", "1"], "one of --json, --text and --file"),
        (["--text", "x", "--delay", "31d"], "--delay: expected at most 30d, got '31d'"),
        (["--text", "x", "--ttl", "0"], "--ttl: expected more than 0 and at most 30d, got '0'"),
        (["--text", "x", "--key", ""], "'--key': expected 1 to 200 characters, got none"),
        (["--text", "x", "--id", "x" * 201], "'--id': expected 1 to 200 characters, got 201"),
        (["--text", "x", "--queue", ""], "'--queue': expected 1 to 200 characters, got none"),
    ],
)
async def test_options_that_do_not_fit_are_wrong_usage(
    arguments: list[str], said: str, queue: Command, tmp_path: Path
) -> None:
    (tmp_path / "jobs.jsonl").write_text("1\n2\n")
    assert said in await queue.error("send", "--queue", "q", *arguments, code=2)
    assert await queue.json("list") == []


async def test_a_waiting_send_shows_progress_and_prints_the_result(queue: Command, room: RoomClient) -> None:
    waiting = await in_background(queue("send", "--queue", "q", "--json", "20", "--wait", "--timeout", "1m"))
    leased = await room.queues.lease(name="q")
    assert leased is not None
    await leased.report_progress(0.5)
    [record] = [each async for each in room.queues.find("q")]
    assert record.progress == 0.5
    while "50%" not in (seen := getattr(queue, "_capsys").readouterr().err):  # noqa: B009 - what was shown until now
        assert isinstance(seen, str)
        await asyncio.sleep(0.02)
    await leased.ack(result={"twice": 40})
    code, out, _ = await waiting
    assert (code, out) == (0, '{"twice": 40}\n')


@pytest.mark.parametrize("end", ["dead", "cancelled"])
async def test_a_waiting_send_fails_with_the_reason(end: str, queue: Command, room: RoomClient) -> None:
    await room.queues.open(name="q")
    await room.queues.configure("q", max_attempts=1)
    waiting = await in_background(queue.error("send", "--queue", "q", "--json", "1", "--wait", "--quiet"))
    leased = await room.queues.lease(name="q")
    assert leased is not None
    assert leased.id is not None
    if end == "dead":
        await leased.nack(error='Traceback (most recent call last):\n  File "x.py"\nValueError: no such city\n')
    else:
        await room.queues.cancel("q", leased.id)
        await leased.nack(reason="interrupted")
    said = await waiting
    assert f"message {leased.id} is {end}" in said
    assert "Traceback" not in said
    whole = f"ValueError: no such city (`meshhost queue get --queue q {leased.id}` shows the whole reason)"
    assert said.endswith(whole) == (end == "dead")


async def test_a_waiting_send_says_that_the_queue_is_paused(queue: Command, room: RoomClient) -> None:
    await room.queues.open(name="q")
    await room.queues.configure("q", paused=True)
    code, _, err = await queue("send", "--queue", "q", "--json", "1", "--quiet", "--timeout", "0.1")
    assert code == 1
    assert "queue q is paused: `meshhost queue resume --queue q` lets its messages go on" in err


@pytest.mark.parametrize("command", ["get", "cancel"])
async def test_a_number_too_large_for_an_id_is_none(command: str, queue: Command) -> None:
    said = await queue.error(command, "--queue", "q", "9" * 20, code=2)
    assert f"'{'9' * 20}' is not a message id: `meshhost queue send` prints it" in said


async def test_a_waiting_send_that_takes_too_long_says_how_to_go_on(queue: Command) -> None:
    said = await queue.error("send", "--queue", "q", "--json", "1", "--quiet", "--timeout", "0.1")
    assert "message 1 has not ended after 0.1 s, and goes on: `meshhost queue get --queue q 1` shows it" in said


async def test_commands_that_are_suggested_name_the_room_that_was_given(queue: Command) -> None:
    said = await queue.error("send", "--room", "demo", "--queue", "q", "--json", "1", "--quiet", "--timeout", "0.1")
    assert "`meshhost queue get --room demo --queue q 1` shows it" in said


# --- what became of messages


async def test_the_life_of_a_message_is_shown(queue: Command, room: RoomClient) -> None:
    sent = await room.queues.send("q", {"city": "Berlin"}, key="k", priority=3)
    leased = await room.queues.lease(name="q")
    assert leased is not None
    await leased.nack(error="Traceback\nValueError: no such city", delay=0)
    leased = await room.queues.lease(name="q")
    assert leased is not None
    await leased.report_progress({"done": 1})

    text = await queue.out("get", "--queue", "q", str(sent))
    record = await queue.json("get", "--queue", "q", str(sent))

    for line in (
        "state: leased",
        "by: ",
        "priority: 3",
        "key: k",
        "failed attempts: 1",
        'progress: {"done": 1}',
    ):
        assert line in text
    assert 'message: {"city": "Berlin"}' in text
    assert text.splitlines()[-1].endswith("failed\tValueError: no such city")
    assert (record["state"], record["history"][0]["reason"]) == ("leased", "failed")

    await leased.ack(result=[1])
    assert "result: [1]" in await queue.out("get", "--queue", "q", str(sent))


async def test_the_traceback_of_a_dead_message_is_shown_line_by_line_below_its_reason(
    queue: Command, room: RoomClient
) -> None:
    await room.queues.open(name="q")
    await room.queues.configure("q", max_attempts=1)
    sent = await room.queues.send("q", {"city": "Atlantis"})
    leased = await room.queues.lease(name="q")
    assert leased is not None
    await leased.nack(error='Traceback (most recent call last):\n  File "x.py", line 3\nValueError: no such city\n')

    lines = (await queue.out("get", "--queue", "q", str(sent))).splitlines()

    assert "reason: ValueError: no such city" in lines
    assert lines[-3:] == [
        "Traceback (most recent call last):",
        '  File "x.py", line 3',
        "ValueError: no such city",
    ]


async def test_messages_are_found_and_more_are_announced(queue: Command, room: RoomClient) -> None:
    for number in range(4):
        await room.queues.send("q", {"n": number}, key=f"k{number % 2}")

    async def found(*arguments: str) -> list[int]:
        return [each["message"]["n"] for each in await queue.json("search", "--queue", "q", *arguments)]

    assert await found() == [3, 2, 1, 0]
    assert await found("--key", "k1") == [3, 1]
    assert await found("--state", "ready", "--state", "blocked", "--limit", "9") == [3, 2, 1, 0]
    assert await found("--state", "done") == []
    assert await found("--text", '"n": 2') == [2]
    assert await found("--since", "1h") == [3, 2, 1, 0]
    assert await found("--until", "1h") == []
    code, out, err = await queue("search", "--queue", "q", "--limit", "2")
    assert (code, [line.split("\t")[1:2] for line in out.splitlines()]) == (0, [["blocked"], ["blocked"]])
    assert "there are more than 2" in err
    assert "expected one of delayed" in await queue.error("search", "--queue", "q", "--state", "new", code=2)


async def test_the_next_messages_are_shown_and_stay(queue: Command, room: RoomClient) -> None:
    await room.queues.send("q", "later")
    await room.queues.send("q", "now", priority=5)
    assert [each["message"] for each in await queue.json("peek", "--queue", "q")] == ["now", "later"]
    assert (await queue.out("peek", "--queue", "q", "--limit", "1")).split("\t")[-1] == '"now"'
    assert await queue.out("size", "--queue", "q") == "2"


async def test_messages_are_cancelled(queue: Command, room: RoomClient) -> None:
    first, second, third = [str(await room.queues.send("q", number)) for number in range(3)]
    assert await queue.out("cancel", "--queue", "q", first) == "cancelled"
    await room.queues.lease(name="q")
    assert "--yes" in await queue.error("cancel", "--queue", "q", second, third, code=2)
    code, out, err = await queue("cancel", "--queue", "q", second, third, "999", "--yes")
    assert (code, out) == (1, f"{second}: leased\n{third}: cancelled\n")
    assert "nothing is known of message 999 " in err


@pytest.mark.parametrize(
    "command", [["get", "1"], ["search"], ["peek"], ["cancel", "1"], ["pause"], ["resume"], ["configure"]]
)
async def test_a_misspelt_queue_is_named_with_those_near_it(
    command: list[str], queue: Command, room: RoomClient
) -> None:
    await room.queues.open(name="jobs")
    assert await queue.error(*command, "--queue", "jbos") == "no queue 'jbos' in room demo; did you mean 'jobs'?"
    assert [each.name for each in await room.queues.list()] == ["jobs"]


async def test_who_may_not_list_queues_learns_only_that_there_is_none(
    queue: Command, server: RunningServer, environment: pytest.MonkeyPatch
) -> None:
    scope = ApiScope(queues=QueuesGrant(list=False))
    environment.setenv("MESHHOST_TOKEN", server.token("demo", scope=scope))
    said = await queue.error("peek", "--queue", "jbos")
    assert "jbos" in said
    assert "permission" not in said


# --- queues


async def test_a_paused_queue_delivers_nothing_until_it_is_resumed(queue: Command, room: RoomClient) -> None:
    await room.queues.send("q", 1)
    assert await queue.out("pause", "--queue", "q") == "queue q is paused"
    assert (await queue.out("list")).split("\t")[-1] == "paused"
    assert await room.queues.lease(name="q", wait=False) is None
    assert await queue.json("resume", "--queue", "q") == {"queue": "q", "paused": False}
    assert await room.queues.lease(name="q", wait=False) is not None


async def test_settings_are_changed_shown_and_reset(queue: Command, room: RoomClient) -> None:
    await queue.out(
        "configure", "--queue", "q", "--create", "--max-attempts", "2", "--retry", "5s", "--result-ttl", "1d"
    )
    await queue.out(
        "configure", "--queue", "q", "--concurrency", "4", "--reset", "max-attempts", "--reset", "result_ttl"
    )
    shown = (await queue.out("configure", "--queue", "q")).splitlines()
    settings = await queue.json("configure", "--queue", "q")

    assert {"retry: 5 s", "max-attempts: the default of the server", "concurrency: 4", "result-ttl: 3600 s"} < set(
        shown
    )
    assert (settings["retry_seconds"], settings["max_attempts"], settings["concurrency"]) == (5, None, 4)
    assert {"rate: no limit", "burst: what the rate allows in one second"} < set(shown)
    rates = ("--rate", "600/m", "--burst", "5", "--key-rate", "1/s")
    assert {"rate: 600/m", "burst: 5", "key-rate: 1/s"} < set(
        (await queue.out("configure", "--queue", "q", *rates)).splitlines()
    )
    assert "expected starts per time, such as 10/s" in await queue.error("configure", "--queue", "q", "--rate", "fast")
    assert (await queue.json("configure", "--queue", "q", "--reset", "rate"))["rate"] is None
    assert "expected one of max-attempts" in await queue.error("configure", "--queue", "q", "--reset", "x", code=2)
    twice = ["configure", "--queue", "q", "--retry", "1s", "--reset", "retry"]
    assert "set and reset" in await queue.error(*twice, code=2)


async def test_a_program_says_yes_to_what_cannot_be_undone(queue: Command, room: RoomClient) -> None:
    await room.queues.send("q", 1)
    for command in ("purge", "delete"):
        said = await queue.error(command, "--queue", "q", code=2)
        assert "--yes" in said
        assert "no terminal" in said
    assert await queue.json("purge", "--queue", "q", "--yes") == {"queue": "q", "purged": 1}
    assert await queue.out("purge", "--queue", "q", "--yes") == "0 messages of queue q deleted"
    assert await queue.json("delete", "--queue", "q", "--yes") == {"queue": "q", "deleted": True}
    assert await room.queues.list() == []


async def test_a_user_is_asked_before_what_cannot_be_undone(
    queue: Command, room: RoomClient, terminal: Terminal
) -> None:
    await room.queues.send("q", 1)
    terminal("n\n")
    assert "aborted" in await queue.error("purge", "--queue", "q")
    terminal("y\n")
    assert "1 message of queue q deleted" in await queue.out("purge", "--queue", "q")
    assert checks.confirm("?", yes=True) is None  # type: ignore[func-returns-value]


async def test_looking_and_pausing_do_not_open_the_room(queue: Command, server: RunningServer) -> None:
    key = QueueKey(RoomKey(TenantId(server.key.project_id), "demo"), "q")
    sent = str(await server.server.engines.queues.send(key, NewMessage("1", delay=3600)))
    directory = server.server.parts.directory
    for arguments in (["list"], ["get", sent], ["search"], ["peek"], ["configure"], ["pause"]):
        await queue.out(*arguments, *([] if arguments == ["list"] else ["--queue", "q"]))
        assert [opened for opened in directory.rooms if opened.is_awake] == []


async def test_a_large_message_is_shown_by_its_beginning_and_printed_whole(queue: Command, room: RoomClient) -> None:
    large = {"text": "x" * 300_000}
    sent = await room.queues.send("q", large)
    shown = await queue.out("get", "--queue", "q", str(sent))
    assert f"message: {json.dumps(large)[:120]}… (300012 bytes)" in shown
    assert (await queue.json("get", "--queue", "q", str(sent)))["body"]["size"] == 300012
    assert json.loads(await queue.out("get", "--queue", "q", "--body", str(sent))) == large
    assert "xxx" in await queue.out("peek", "--queue", "q")
    assert "not both" in await queue.error("get", "--queue", "q", "--body", "--result", "1", code=2)
    leased = await room.queues.lease(name="q")
    assert leased is not None
    await leased.ack(result=large)
    assert "… (300012 bytes)" in await queue.out("get", "--queue", "q", str(sent))
    assert json.loads(await queue.out("get", "--queue", "q", "--result", str(sent))) == large
    assert "has no body" in await queue.error("get", "--queue", "q", "--body", str(sent))
