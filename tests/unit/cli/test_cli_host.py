"""`meshhost host`: what it prints, for what a host answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer

from meshhost.cli.commands.host import client, tables
from meshhost.cli.main import run

AGENT = {
    "id": "0123456789abcdef0123456789abcdef",
    "state": "backing_off",
    "tenant": "acme",
    "room": "room",
    "identity": "[red]\x1b[31mworker",
    "path": "/worker",
    "isolation": "process",
    "restarts": 2,
    "age_seconds": 90.0,
    "state_seconds": 3.0,
    "waits_for": "its next start after a crash",
    "reason": "",
    "last_error": {
        "type": "ValueError",
        "text": "no",
        "traceback": "Traceback:\n  File x\n    \x1b[31mraise\nValueError",
    },
    "memory_bytes": 50 * 1024**2,
}
QUIET = AGENT | {
    "id": "f" * 32,
    "state": "running",
    "restarts": 0,
    "waits_for": None,
    "memory_bytes": None,
    "last_error": None,
}
HOLD = {"path": None, "reason": "60 crashes within 120 s"}
TENANTS = {
    "tenants": [
        {
            "tenant": "acme",
            "agents": 2,
            "waiting": 1,
            "memory_bytes": 50 * 1024**2,
            "frozen": True,
            "freeze": {"since": 86400.0, "reason": "abuse\x1b[31m", "until_restart": True},
            "quarantine": [HOLD],
            "quota": {"max_agents": None, "max_waiting": 1000, "weight": 1.0},
        }
    ],
    "load": {"value": 0.25, "lag": 0.0, "cpu": 0.25, "memory": 0.1, "agents": 0.002},
    "starts": {"waiting": 1, "running": 3},
}


class Asked(list[tuple[str, str, dict[str, str]]]):
    """What was asked for; `agents` is who lives on the host, which gives `per_page` of them, `bodies` what was sent."""

    agents: list[dict[str, Any]]
    bodies: list[dict[str, str] | None]
    per_page = 1000

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        is_failed = query.get("state") == "failed"
        there = [agent for agent in self.agents if (agent["state"] == "failed") == is_failed]
        agents = [agent for agent in there if agent["id"].startswith(query.get("id", ""))]
        start, limit = int(query.get("after", "0")), min(int(query["limit"]), self.per_page)
        more = {"next": str(start + limit)} if len(agents) > start + limit else {}
        return {"agents": agents[start : start + limit], **more}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    asked.agents, asked.bodies = [QUIET, AGENT], []

    def request(base: str, method: str, path: str, query: dict[str, str], body: dict[str, str] | None) -> Any:
        asked.append((method, f"{base}{path}", query))
        asked.bodies.append(body)
        if path == "/agents":
            return asked.page(query)
        if method == "GET":
            return {"/tenants": TENANTS}.get(path, AGENT)
        freeze = {"freeze": {"until_restart": False}} if path.endswith("a%2F..%2Fb/freeze") else {}
        released = {"released": [HOLD, HOLD | {"path": "/worker"}]}
        return {"ok": True, "spawn_id": AGENT["id"], "agents": 2, **freeze, **released}

    monkeypatch.setattr(client, "request", request)
    monkeypatch.setattr("meshhost.cli.log_output.log_for_command", lambda: None)
    monkeypatch.setenv("MESHHOST_PORT", "8081")
    return asked


def test_agents_are_listed_in_one_line_each(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "ps", "--tenant", "acme", "--url", "https://host.example/"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("\t") == [
        "f" * 12,
        "running",
        "acme",
        "room",
        "[red][31mworker",
        "/worker",
        "process",
        "2m",
        "0",
        "",
        "",
    ]
    assert second.split("\t")[7:] == ["2m", "2", "50 MB", "its next start after a crash"]
    query, url = {"tenant": "acme", "limit": "1000"}, "https://host.example/agents"
    assert asked == [("GET", url, query), ("GET", url, query | {"state": "failed"})]


@pytest.mark.parametrize("url", ["ftp://host.example", "http://host.example:65536", "http://[host", "host.example"])
def test_what_is_no_url_of_a_host_is_wrong_usage(url: str, asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "ps", "--url", url]) == 2
    assert "expected a URL such as http://127.0.0.1:8081" in capsys.readouterr().err
    assert asked == []


def test_agents_that_failed_for_good_are_listed_after_the_living(
    asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = AGENT | {"id": "a" * 32, "state": "failed", "waits_for": None, "reason": "gave up"}
    asked.agents = [failed, QUIET]
    assert run(["host", "ps", "--json"]) == 0
    assert [agent["id"] for agent in json.loads(capsys.readouterr().out)] == [QUIET["id"], failed["id"]]
    assert run(["host", "ps", "--limit", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(["host", "ps", "--state", "failed"]) == 0
    assert capsys.readouterr().out.startswith("a" * 12)
    assert run(["host", "describe", "aaaaaa"]) == 0


def test_an_agent_is_described_with_its_traceback(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "describe", "012345"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"id: {AGENT['id']}"
    assert "memory: 50 MB" in lines
    assert "waits for: its next start after a crash" in lines
    assert "in this state for: 3s" in lines
    assert lines[-5:] == ["last error: ValueError: no", "Traceback:", "  File x", "    [31mraise", "ValueError"]
    assert asked[-1][1] == f"http://127.0.0.1:8081/agents/{AGENT['id']}"


@pytest.mark.parametrize(
    ("arguments", "request_made", "said"),
    [
        (["stop", "012345"], ("DELETE", f"/agents/{AGENT['id']}", {}), "was asked to leave"),
        (
            ["stop", "012345", "--for", "10m"],
            ("DELETE", f"/agents/{AGENT['id']}", {"for": "600"}),
            "its calls are refused for 10m\n",
        ),
        (
            ["stop", "012345", "--for", "0"],
            ("DELETE", f"/agents/{AGENT['id']}", {"for": "0"}),
            "its calls are accepted\n",
        ),
        (["kill", "012345"], ("DELETE", f"/agents/{AGENT['id']}", {"abort": "1"}), "was aborted"),
        (["freeze", "a/../b", "--force"], ("POST", "/tenants/a%2F..%2Fb/freeze", {}), "tenant a/../b is frozen\n"),
        (["freeze", "acme"], ("POST", "/tenants/acme/freeze", {}), "acme is frozen until this host restarts"),
        (["release", "acme"], ("POST", "/quarantine/release", {}), "released from quarantine: all paths, /worker"),
        (["thaw", "acme"], ("POST", "/tenants/acme/thaw", {}), "tenant acme is not frozen"),
        (["drain", "--no-wait"], ("POST", "/drain", {}), "the host is draining; agents: 2"),
    ],
)
def test_a_host_is_steered(
    asked: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], request_made: Any, said: str
) -> None:
    method, path, query = request_made
    assert run(["host", *arguments]) == 0
    assert said in capsys.readouterr().out
    assert asked[-1] == (method, f"http://127.0.0.1:8081{path}", query)
    assert run(["host", *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.parametrize(
    ("arguments", "bodies"),
    [
        # The first request looks whether the host knows the tenant.
        (["freeze", "acme"], [None, None]),
        (["freeze", "acme", "--reason", "abuse"], [None, {"reason": "abuse"}]),
        (["freeze", "acme", "--reason", "abuse", "--force"], [{"reason": "abuse"}]),
        (["release", "acme"], [{"tenant": "acme"}]),
        (["release", "acme", "--path", "/worker"], [{"tenant": "acme", "path": "/worker"}]),
    ],
)
def test_what_is_sent_with_it(asked: Any, arguments: list[str], bodies: list[dict[str, str] | None]) -> None:
    assert run(["host", *arguments]) == 0
    assert asked.bodies == bodies


@pytest.mark.parametrize("command", ["freeze", "thaw"])
def test_a_misspelt_tenant_is_an_error(asked: Any, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(["host", command, "amce"]) == 1
    assert "no tenant 'amce' has agents on this host; there are: acme" in capsys.readouterr().err
    assert [method for method, *_ in asked] == ["GET"]


def test_an_id_that_is_not_of_one_agent_is_refused(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked.agents = [AGENT | {"id": f"abcdef{number:026}"} for number in range(7)]
    for spawn, said in (
        ("", "at least 6 characters"),
        ("abcde", "at least 6 characters"),
        ("012345", "no agent with an id that begins like this"),
        ("abcdef", f"begins like this: abcdef{0:026} ([red][31mworker in room), abcdef{1:026}"),
        (f"abcdef{0:025}", "ID"),
    ):
        assert run(["host", "kill", spawn]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert ("…" in error) == spawn.startswith("abcdef")
    asked.agents = asked.agents[:2]
    assert run(["host", "kill", "abcdef"]) == 2
    assert "…" not in capsys.readouterr().err
    assert {method for method, _, _ in asked} == {"GET"}


def test_a_host_that_does_not_know_prefixes_stops_nobody_else(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "page", lambda query: {"agents": [QUIET]})
    assert run(["host", "kill", "012345"]) == 2
    assert "no agent with an id" in capsys.readouterr().err


def test_all_pages_are_listed_in_a_pipe_and_so_many_as_were_asked_for(
    asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.agents, asked.per_page = [AGENT | {"id": f"{number:032x}"} for number in range(25)], 10
    filters = ["--tenant", "acme", "--path", "/worker", "--state", "running", "--room", "room"]
    assert run(["host", "ps", *filters]) == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (25, "")
    given = {"tenant": "acme", "path": "/worker", "state": "running", "room": "room"}
    assert [query for _, _, query in asked] == [
        {**given, "limit": "1000"},
        {**given, "limit": "1000", "after": "10"},
        {**given, "limit": "1000", "after": "20"},
    ]
    assert run(["host", "ps", "--limit", "12", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [agent["id"] for agent in json.loads(out)] == [f"{number:032x}" for number in range(12)]
    assert "there are more than 12: see --limit" in err
    assert run(["host", "ps", "--limit", "0"]) == 2


def test_at_a_terminal_a_thousand_are_enough(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    asked.agents = [AGENT | {"id": f"{number:032x}"} for number in range(1001)]
    assert run(["host", "ps"]) == 0
    assert "there are more than 1000" in capsys.readouterr().err
    assert len(asked) == 1
    assert run(["host", "ps", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1001


def test_nobody_found_is_said_on_stderr(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked.agents = []
    for arguments, said in (([], "no agents on this host"), (["--room", "x"], "no agents match on this host")):
        assert run(["host", "ps", *arguments]) == 0
        assert capsys.readouterr() == ("", f"{said}\n")


def test_tenants_are_listed_with_freeze_and_quarantine(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "tenants"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.split("\t") == [
        "acme",
        "2",
        "1",
        "50 MB",
        "1970-01-02 00:00:00Z (until this host restarts)",
        "abuse[31m",
        "all: 60 crashes within 120 s",
        "max_waiting=1000 weight=1.0",
    ]
    assert run(["host", "tenants", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == TENANTS["tenants"]
    assert tables.tenant_row({**TENANTS["tenants"][0], "freeze": None})[4:6] == ("", None)


def test_top_prints_once_without_a_terminal(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "top"]) == 0
    headline, *rows = capsys.readouterr().out.splitlines()
    assert headline == (
        "load 25% (lag 0%, cpu 25%, memory 10%, agents 0%); 2 agents of 1 tenants; 3 starting, 1 waiting to start"
    )
    assert len(rows) == 2
    assert run(["host", "top", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"tenants", "load", "starts", "agents"}


def test_top_goes_on_at_a_terminal_until_ctrl_c(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    sleeps = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert run(["host", "top", "--interval", "0.5"]) == 130
    assert sleeps == [0.5, 0.5]
    assert [path.rpartition("/")[2] for _, path, _ in asked] == ["tenants", "agents", "agents"] * 2


def test_the_screen_shows_first_what_is_wrong(asked: Any) -> None:
    from rich.console import Console

    console = Console(width=220, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123 - ends with the test
    console.print(tables.screen({**TENANTS, "agents": [QUIET, AGENT]}, console.width))
    console.file.close()
    text = console.export_text()
    assert "frozen, quarantine of all: 60 crashes within 120 s" in text
    assert text.index(AGENT["id"][:12]) < text.index("f" * 12)
    assert "[red][31mworker" in text


def test_a_tenant_is_shown_by_its_name_where_the_host_knows_it() -> None:
    assert tables.agent_row(AGENT)[2] == "acme"
    assert tables.agent_row(AGENT | {"tenant_name": "Acme Inc"})[2] == "Acme Inc"
    assert tables.agent_row(AGENT | {"tenant_name": None})[2] == "acme"
    assert tables.tenant_row(TENANTS["tenants"][0] | {"tenant_name": "Acme Inc"})[0] == "Acme Inc"


UUID = "e63405ce-3907-4715-ae8e-69ffee67e174"


def test_at_80_columns_each_agent_has_a_line_and_what_is_left_out_is_said(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    asked.agents = [one | {"tenant": UUID, "identity": "storage-worker", "room": "my-room"} for one in (QUIET, AGENT)]
    assert run(["host", "ps"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [len(line) <= 80 for line in lines[1:]] == [True, True]
    assert "e63405ce…" in lines[1]
    assert err == "left out of the table, to fit: isolation, memory, path, waits for; --json has all\n"

    monkeypatch.setenv("COLUMNS", "240")
    assert run(["host", "ps"]) == 0
    out, err = capsys.readouterr()
    assert UUID in out
    assert err == ""


def test_a_column_that_says_nothing_is_not_shown() -> None:
    columns, rows, left_out = tables.agent_table([QUIET], 240)
    assert "MEMORY" not in columns
    assert "WAITS FOR" not in columns
    assert (len(rows[0]), left_out) == (len(columns), [])


def test_the_host_that_service_run_started_is_found(
    asked: Any, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.delenv("MESHHOST_PORT")
    assert client.base_url(None) == "http://127.0.0.1:8081"
    hosts = tmp_path / "config" / "hosts"
    hosts.mkdir(parents=True)
    for pid, port in ((os.getpid(), 4711), (os.getppid(), 4712)):
        (hosts / f"{pid}.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}", "room": f"room-{port}"}))
        if port == 4711:
            assert client.base_url(None) == "http://127.0.0.1:4711"
    with pytest.raises(typer.BadParameter, match=r"several hosts run here: .*4711 \(for room room-4711\)"):
        client.base_url(None)
    environment.setenv("MESHHOST_PORT", "9000")
    assert client.base_url(None) == "http://127.0.0.1:9000"
    assert client.base_url("http://host.example/") == "http://host.example"


RECORD = {
    "number": 7,
    "time": "2026-11-29T18:00:00.000+00:00",
    "level": "ERROR",
    "logger": "meshhost.room.consumer",
    "message": "processing failed",
    "room": "r",
    "traceback": "Traceback:\n  File x\n    \x1b[31mraise\nKeyError: 'to'\n",
}


def test_an_id_that_is_too_short_for_logs_is_refused_as_elsewhere(
    asked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["logs", "012"], ["host", "describe", "012"]):
        assert run(arguments) == 2
        assert "Invalid value for ID: expected at least 6 characters of the agent's id" in capsys.readouterr().err
    assert not asked


def test_logs_are_shown_and_followed_from_the_last_record(
    asked: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[dict[str, str]] = []

    def request(_: str, method: str, path: str, query: dict[str, str], body: object) -> Any:
        assert (method, path, body) == ("GET", "/agents/logs", None)
        queries.append(query)
        return {"records": [RECORD] if len(queries) != 3 else [], "next": 7}

    def sleep(seconds: float) -> None:
        if len(queries) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(client, "request", request)
    monkeypatch.setattr("time.sleep", sleep)
    assert run(["logs", "--json", "012345"]) == 0
    assert json.loads(capsys.readouterr().out) == RECORD
    assert run(["logs", "--follow", "--room", "r", "-n", "5"]) == 130
    assert queries == [
        {"id": "012345", "limit": "100"},
        {"room": "r", "limit": "5"},
        *[{"room": "r", "after": "7"}] * 2,
    ]
    line, *trace = capsys.readouterr().out.splitlines()[:5]
    assert line.endswith("ERROR meshhost.room.consumer: processing failed room=r")
    assert trace == ["Traceback:", "  File x", "    [31mraise", "KeyError: 'to'"]
