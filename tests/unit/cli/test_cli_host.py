"""`meshhost host`: what it prints, for what a host answers."""

import json
from typing import Any

import pytest

from meshhost.cli import host
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
    "tenants": [{"tenant": "acme", "agents": 2, "waiting": 1, "frozen": True, "quarantine": [HOLD]}],
    "load": {"value": 0.25, "lag": 0.0, "cpu": 0.25, "memory": 0.1, "agents": 0.002},
    "starts": {"waiting": 1, "running": 3},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, str]]]:
    asked: list[tuple[str, str, dict[str, str]]] = []

    async def request(base: str, method: str, path: str, query: dict[str, str]) -> Any:
        asked.append((method, f"{base}{path}", query))
        if method == "GET":
            return {"/agents": {"agents": [QUIET, AGENT]}, "/tenants": TENANTS}.get(path, AGENT)
        return {"ok": True, "spawn_id": AGENT["id"], "agents": 2}

    monkeypatch.setattr(host, "_request", request)
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
    assert asked == [("GET", "https://host.example/agents", {"tenant": "acme"})]


def test_an_agent_is_described_with_its_traceback(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "describe", "0123"]) == 0
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
        (["stop", "0123"], ("DELETE", f"/agents/{AGENT['id']}", {}), "is asked to leave"),
        (["kill", "0123"], ("DELETE", f"/agents/{AGENT['id']}", {"abort": "1"}), "is aborted"),
        (["freeze", "a/../b"], ("POST", "/tenants/a%2F..%2Fb/freeze", {}), "tenant a/../b is frozen"),
        (["thaw", "acme"], ("POST", "/tenants/acme/thaw", {}), "tenant acme is not frozen"),
        (["drain"], ("POST", "/drain", {}), "the host drains its agents (2)"),
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


def test_an_id_that_is_not_of_one_agent_is_refused(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "kill", ""]) == 2
    assert "2 agents with an id that begins so" in capsys.readouterr().err
    assert {method for method, _, _ in asked} == {"GET"}


def test_top_prints_once_without_a_terminal(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "top"]) == 0
    headline, *rows = capsys.readouterr().out.splitlines()
    assert headline == (
        "load 25% (lag 0%, cpu 25%, memory 10%, agents 0%); 2 agents of 1 tenants; 3 starting, 1 waiting for their turn"
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
    assert len(asked) == 4


def test_the_screen_shows_first_what_is_wrong(asked: Any) -> None:
    from rich.console import Console

    console = Console(width=220, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123 - ends with the test
    console.print(host._screen({**TENANTS, "agents": [QUIET, AGENT]}))
    console.file.close()
    text = console.export_text()
    assert "frozen, quarantine of all: 60 crashes within 120 s" in text
    assert text.index(AGENT["id"][:12]) < text.index("f" * 12)
    assert "[red][31mworker" in text
