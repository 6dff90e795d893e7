"""Two tenants on one running room server, managed by its operator, with real processes."""

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshhost.archives.manifest import MANIFEST, Manifest
from meshhost.archives.tar import TarEncoder
from tests.e2e.test_cli import Cli, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # some thirty processes, one after another


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    with serving(cli) as (_, ready):
        cli.url = ready["url"]
        yield cli


def tenant(operator: Cli, name: str) -> tuple[Cli, Any]:
    """The command line of a customer on a machine of its own, and its key."""
    operator.out("tenant", "create", name)
    key = operator.json("key", "create", "--tenant", name, "--role", "developer")
    home = operator.home / name
    home.mkdir()
    return Cli(home, operator.url, {"MESHHOST_API_KEY": key["value"]}), key


def sending(text: str) -> tuple[str, ...]:
    return ("queue", "send", "--room", "room", "--queue", "q", "--json", f'"{text}"')


def send(cli: Cli, text: str) -> None:
    cli.out(*sending(text))


def test_two_tenants_share_a_server_and_nothing_else(operator: Cli) -> None:
    acme, key = tenant(operator, "acme")
    rival, _ = tenant(operator, "rival")
    receive = ("queue", "receive", "--room", "room", "--queue", "q")
    send(acme, "of acme")
    send(rival, "of rival")
    assert "of acme" in acme.out(*receive)
    assert "of rival" in rival.out(*receive)

    operator.out("tenant", "suspend", "acme", "--reason", "unpaid")
    assert "the tenant is suspended: unpaid" in acme.error("queue", "list", "--room", "room")
    send(rival, "still here")
    operator.out("tenant", "resume", "acme")
    send(acme, "back")
    operator.out("tenant", "rename", "acme", "acme-inc")
    assert [one["name"] for one in operator.json("tenant", "list")] == ["acme-inc", "rival"]
    assert operator.json("tenant", "show", key["tenant"] + "-inc")["suspended"] is None

    assert "operator" in acme.error("tenant", "list")
    operator.out("key", "revoke", key["id"], "--tenant", "acme-inc")
    assert operator.json("key", "list", "--tenant", "acme-inc") == []
    acme.error("queue", "list", "--room", "room")
    send(rival, "and still here")


def test_a_viewers_key_signs_no_token_and_a_refusal_is_a_sentence(operator: Cli) -> None:
    operator.out("tenant", "create", "acme")
    key = operator.json("key", "create", "--tenant", "acme", "--role", "viewer")
    home = operator.home / "acme"
    home.mkdir()
    viewer = Cli(home, operator.url, {"MESHHOST_API_KEY": key["value"]})
    assert "a token signed by it opens no room" in viewer.error("token", "create", "--name", "ada", "--room", "room")

    refused = viewer.error("tenant", "create", "rival")
    assert "the room server refused the request (403): " in refused
    assert '{"error"' not in refused
    offline = Cli(home, "http://127.0.0.1:9", {"MESHHOST_API_KEY": key["value"]})
    assert offline.out("token", "create", "--name", "ada", "--room", "room").startswith("ey")


def test_a_tenant_is_deleted_through_a_crash_and_its_neighbour_stays(tmp_path: Path) -> None:
    operator = Cli(tmp_path)
    with serving(operator) as (server, ready):
        operator.url = ready["url"]
        acme, key = tenant(operator, "acme")
        rival, _ = tenant(operator, "rival")
        notes = tmp_path / "notes.txt"
        notes.write_text("secret")
        for cli in (acme, rival):
            send(cli, "job")
            cli.out("storage", "cp", str(notes), "room:notes.txt", "--room", "room")
        operator.out("tenant", "delete", "acme", "--yes")
        assert [one["name"] for one in operator.json("tenant", "list")] == ["rival"]
        acme.error("queue", "list", "--room", "room")
        # A room, whose deletion the server does not survive: it is killed as soon as the record is on disk.
        with operator.popen("room", "delete", "room", "--tenant", "rival", "--yes", stderr=subprocess.DEVNULL):
            with closing(sqlite3.connect(tmp_path / "data" / "identity.db")) as identity:
                while not identity.execute("SELECT 1 FROM deleted_room").fetchall():
                    time.sleep(0.001)
            server.send_signal(signal.SIGKILL)
            server.wait()
    data = tmp_path / "data"
    assert key["tenant"] == "acme"
    with serving(operator) as (_, ready):
        operator.url = rival.url = acme.url = ready["url"]
        assert rival.json("queue", "list", "--room", "room") == []
        assert rival.json("storage", "ls", "--room", "room") == []
        acme.error("queue", "list", "--room", "room")
        made = operator.json("tenant", "create", "acme")
        assert made["name"] == "acme"
    left = [str(path) for path in data.rglob("*") if path.name == "notes.txt"]
    assert left == []


def test_a_tenant_at_its_limits_is_refused_through_a_crash_and_its_neighbour_is_not(tmp_path: Path) -> None:
    operator = Cli(tmp_path)
    with serving(operator) as (server, ready):
        operator.url = ready["url"]
        acme, _ = tenant(operator, "acme")
        rival, _ = tenant(operator, "rival")
        operator.out("tenant", "limit", "acme", "--messages", "2", "--files", "0")
        for cli in (acme, acme, rival, rival, rival):
            send(cli, "job")
        assert "over the tenant's quota max_messages: 2 messages" in acme.error(*sending("job"))
        notes = tmp_path / "notes.txt"
        notes.write_text("notes")
        assert "quota max_files" in acme.error("storage", "cp", str(notes), "room:notes.txt", "--room", "room")
        server.send_signal(signal.SIGKILL)
        server.wait()
    with serving(operator) as (_, ready):
        operator.url = rival.url = acme.url = ready["url"]
        shown = operator.json("tenant", "show", "acme")
        assert (shown["quota"]["max_messages"], shown["use"]["messages"]) == (2, 2)
        assert "quota max_messages" in acme.error(*sending("job"))
        send(rival, "job")
        acme.out("queue", "purge", "--room", "room", "--queue", "q", "--yes")
        send(acme, "job")
        operator.out("tenant", "limit", "acme", "--messages", "default")
        for _ in range(2):
            send(acme, "job")


WORKER = """
import asyncio

from meshhost.agents.worker import Worker
from meshhost.api.services import ServiceHost

host = ServiceHost()


@host.path("/work", identity="worker")
class Idle(Worker):
    def __init__(self):
        super().__init__(queue="jobs", name="worker")

    async def process_message(self, *, message, room):
        pass


asyncio.run(host.run())
"""


def test_a_running_host_shows_a_renamed_tenant_by_its_new_name(operator: Cli) -> None:
    acme, key = tenant(operator, "acme")
    (acme.home / "worker.py").write_text(WORKER)
    with (acme.home / "service.log").open("w") as log:
        service = acme.popen("service", "run", "worker.py", "--room", "room", stdout=log, stderr=log)
    with service:
        try:
            agent = until_shown(acme, "acme")
            operator.out("tenant", "rename", "acme", "acme-inc")
            renamed = until_shown(acme, "acme-inc")
            assert (renamed["id"], renamed["restarts"], renamed["tenant"]) == (agent["id"], 0, agent["tenant"])
            assert "acme-inc" in acme.out("host", "ps")
            assert "acme-inc" in acme.out("host", "tenants")
            assert key["tenant"] == "acme"
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(timeout=60)


def until_shown(cli: Cli, name: str) -> Any:
    """Ask the host until it runs an agent and shows its tenant by this name; return the agent."""
    for _ in range(40):
        done = cli.run("host", "ps", "--json")  # fails until the host is there
        agents = json.loads(done.stdout) if done.returncode == 0 else []
        if [agent["tenant_name"] for agent in agents] == [name]:
            return agents[0]
        time.sleep(0.25)
    raise AssertionError(f"{done.stdout!r} {done.stderr!r}\n{(cli.home / 'service.log').read_text()}")


def test_a_deletion_is_confirmed(operator: Cli) -> None:
    operator.out("tenant", "create", "acme")
    refused = operator.run("tenant", "delete", "acme")  # nobody answers
    assert (refused.returncode, refused.stderr.decode().endswith("meshhost: aborted\n")) == (1, True)
    assert [one["name"] for one in operator.json("tenant", "list")] == ["acme"]
    assert operator.run("tenant", "delete", "acme", input=b"y\n").returncode == 0
    assert operator.json("tenant", "list") == []


def test_a_tenant_moves_to_another_server_and_its_neighbour_stays(operator: Cli, tmp_path: Path) -> None:
    acme, key = tenant(operator, "acme")
    rival, _ = tenant(operator, "rival")
    notes = tmp_path / "notes.txt"
    notes.write_text("what acme wrote")
    for number in range(3):
        send(acme, f"job {number}")
    send(rival, "of rival")
    acme.out("storage", "cp", str(notes), "room:a folder/notes.txt", "--room", "room")
    archive = str(tmp_path / "acme.tar")

    operator.out("tenant", "suspend", "acme", "--reason", "moves")
    assert "moves" in acme.error("queue", "list", "--room", "room")
    assert "operator" in rival.error("tenant", "export", "acme", archive)
    assert not Path(archive).exists()
    exported = operator.json("tenant", "export", "acme", archive)
    assert exported == {"file": archive, "bytes": Path(archive).stat().st_size}
    assert "exists" in operator.error("tenant", "export", "acme", archive)
    operator.out("tenant", "delete", "acme", "--yes")

    names = subprocess.run(["tar", "tf", archive], check=True, capture_output=True, text=True).stdout.splitlines()
    assert (names[0], names[-1]) == ("manifest.json", "SHA256")
    assert "rooms/room/files/a folder/notes.txt" in names
    assert key["value"].encode() not in Path(archive).read_bytes()

    other = tmp_path / "other"
    other.mkdir()
    elsewhere = Cli(other)
    with serving(elsewhere) as (_, ready):
        elsewhere.url = ready["url"]
        half = tmp_path / "half.tar"
        half.write_bytes(Path(archive).read_bytes()[: exported["bytes"] // 2])
        assert "damaged or incomplete" in elsewhere.error("tenant", "import", str(half))
        assert elsewhere.json("tenant", "list") == []
        imported = elsewhere.json("tenant", "import", archive)
        assert (imported["name"], imported["messages"], imported["files"]) == ("acme", 3, 1)
        assert "acme" in elsewhere.error("tenant", "import", archive)
        elsewhere.out("tenant", "import", archive, "--as", "acme-copy")
        made = elsewhere.json("key", "create", "--tenant", "acme", "--role", "admin")
        moved = Cli(acme.home, elsewhere.url, {"MESHHOST_API_KEY": made["value"]})
        assert "unknown" in Cli(acme.home, elsewhere.url, acme.extra).error("room", "list")
        receive = ("queue", "receive", "--room", "room", "--queue", "q")
        assert [text for number in range(3) if (text := f"job {number}") in moved.out(*receive)] == [
            "job 0",
            "job 1",
            "job 2",
        ]
        assert moved.out("storage", "cat", "a folder/notes.txt", "--room", "room") == "what acme wrote"

        # A room of its own, by the tenant's admin.
        room = str(tmp_path / "room.tar")
        moved.out("room", "export", "room", room)
        moved.out("room", "import", room, "--as", "copy")
        assert moved.out("storage", "cat", "a folder/notes.txt", "--room", "copy") == "what acme wrote"
        assert "is there" in moved.error("room", "import", room)
    assert "of rival" in rival.out("queue", "receive", "--room", "room", "--queue", "q")


def archive_of_messages(count: int) -> bytes:
    tar, folder = TarEncoder(), "rooms/room/queues/1"
    parts = [
        tar.entry(MANIFEST, Manifest("room", "room", 1.0).to_json()),
        tar.entry("rooms/room/room.json", b'{"metadata": "{}"}\n'),
        tar.entry(f"{folder}/queue.json", b'{"name": "q"}\n'),
        tar.entry(f"{folder}/1.jsonl", b'{"body": "1", "sent_at": 1}\n' * count),
        tar.finish(),
    ]
    return b"".join(parts)


def test_an_import_that_the_server_does_not_survive_leaves_nothing(tmp_path: Path) -> None:
    operator = Cli(tmp_path)
    archive, identity_file = tmp_path / "room.tar", tmp_path / "data" / "identity.db"
    archive.write_bytes(archive_of_messages(200_000))
    with serving(operator) as (server, ready):
        operator.url = ready["url"]
        acme, _ = tenant(operator, "acme")
        # Killed as soon as some of it is stored.
        with operator.popen("room", "import", str(archive), "--tenant", "acme", stderr=subprocess.DEVNULL):
            with closing(sqlite3.connect(tmp_path / "data" / "queues.db")) as queues:
                while not queues.execute("SELECT 1 FROM messages LIMIT 1").fetchall():
                    time.sleep(0.001)
            server.send_signal(signal.SIGKILL)
            server.wait()
    with closing(sqlite3.connect(identity_file)) as identity, identity:
        (until,) = identity.execute("SELECT importing_until FROM deleted_room WHERE ended = 0").fetchone()
        assert 0 < until - time.time() <= 60
    with serving(operator) as (_, ready):
        operator.url = acme.url = ready["url"]
        assert "being imported" in acme.error("queue", "list", "--room", "room")
        assert acme.json("room", "list") == []
    # A minute later.
    with closing(sqlite3.connect(identity_file)) as identity, identity:
        identity.execute("UPDATE deleted_room SET importing_until = 1")
    with serving(operator) as (_, ready):
        operator.url = acme.url = ready["url"]
        while "being deleted" in acme.run("queue", "list", "--room", "room").stderr.decode():
            pass
        assert acme.json("queue", "list", "--room", "room") == []
        send(acme, "new")
    with closing(sqlite3.connect(tmp_path / "data" / "queues.db")) as queues:
        assert queues.execute("SELECT count(*) FROM messages").fetchone() == (1,)
