"""`meshhost host drain`: it waits, tells who is still there, and knows a host that went away."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from meshhost.cli.commands.host import client, draining
from meshhost.cli.main import run
from meshhost.errors import ConnectionLostError, RoomRefusedError

AGENT = {
    "id": "0" * 32,
    "state": "draining",
    "room": "room",
    "identity": "worker\x1b[31m",
    "path": "/jobs",
    "waits_for": "its work to finish: a message of queue 'jobs' for 12 s",
    "leave_seconds": 20.4,
}
FULL = {"agents": [AGENT]}
EMPTY: dict[str, Any] = {"agents": []}


class Time:
    """Passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Host:
    """Answers the looks in turn, the last answer for ever; an exception is raised."""

    def __init__(self, *answers: Any, refuses: bool = False) -> None:
        self.answers = list(answers)
        self.refuses = refuses
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def request(self, base: str, method: str, path: str, query: dict[str, str], *_: Any, **__: Any) -> Any:
        self.asked.append((method, path, query))
        if method == "POST":
            return {"ok": True, "agents": 2, "seconds": 20.0}
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


Drain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def drain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Drain:
    """`drain(host, *options)`: exit code, stdout and stderr of the command."""
    monkeypatch.setattr("meshhost.cli.log_output.log_for_command", lambda: None)
    monkeypatch.setitem(draining.wait_until_empty.__kwdefaults__, "clock", Time())
    monkeypatch.setenv("MESHHOST_PORT", "8081")

    def run_it(fake: Host, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(client, "request", fake.request)
        monkeypatch.setattr(draining, "nothing_listens_at", lambda _: fake.refuses)
        code = run(["host", "drain", *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_it_returns_when_all_have_left_and_tells_meanwhile_who_is_there(drain: Drain) -> None:
    fake = Host(*[FULL] * 7, EMPTY)
    code, out, err = drain(fake)
    told = [
        "1 agent is still there",
        "- worker[31m in room at /jobs: 20 s left, waits for its work to finish: a message of queue 'jobs' for 12 s",
    ]
    assert (code, out, err.splitlines()) == (0, "all agents have left, after 7 s\n", told * 2)
    assert fake.asked[:2] == [("POST", "/drain", {}), ("GET", "/agents", {"limit": "100"})]


def test_many_agents_are_told_by_their_number_and_ten_of_them_by_name(drain: Drain) -> None:
    busy = AGENT | {"leave_seconds": None}
    _, _, err = drain(Host({"agents": [busy] * 12}, {"agents": [busy] * 100, "next": "x"}), "--timeout", "5")
    first, second = err.splitlines()[:12], err.splitlines()[12:]
    assert (first[0], first[-1]) == ("12 agents are still there", "- and 2 others")
    assert first[1].startswith("- worker[31m in room at /jobs: waits for its work")
    assert (second[0], second[-1]) == ("more than 100 agents are still there", "- and more than 90 others")


def test_it_gives_up_at_its_timeout_and_says_who_is_left(drain: Drain) -> None:
    code, out, _ = drain(Host(FULL), "--timeout", "3")
    assert (code, out) == (1, "gave up waiting: agents that are still there: 1\n")
    code, out, _ = drain(Host(FULL), "--json")
    assert (code, json.loads(out)) == (1, {"ok": False, "agents": 2, "gone": False, "left": [AGENT], "seconds": 30.0})


def test_as_json_it_is_one_object_at_the_end(drain: Drain) -> None:
    code, out, _ = drain(Host(FULL, EMPTY), "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "agents": 2, "gone": False, "left": [], "seconds": 1.0})


def test_without_waiting_nobody_is_looked_for(drain: Drain) -> None:
    fake = Host(FULL)
    code, out, err = drain(fake, "--no-wait")
    assert (code, out, err) == (0, "the host is draining; agents: 2\n", "")
    assert [method for method, _, _ in fake.asked] == ["POST"]


def test_a_host_that_is_gone_counts_as_drained(drain: Drain) -> None:
    code, out, _ = drain(Host(FULL, ConnectionLostError("cannot reach it"), refuses=True))
    assert (code, out) == (0, "the host has ended; agents that were there at the last look: 1\n")


def test_a_host_that_came_in_its_place_counts_as_drained_too(drain: Drain) -> None:
    code, out, _ = drain(Host({"agents": [AGENT], "next": "x"}, {"agents": [AGENT | {"state": "starting"}]}), "--json")
    assert (code, json.loads(out)["gone"]) == (0, True)


def test_a_host_that_is_only_out_of_reach_is_tried_again(drain: Drain) -> None:
    away = [ConnectionLostError("cannot reach it"), RoomRefusedError("answered 502", status=502)]
    code, out, err = drain(Host(*away, EMPTY))
    assert (code, out) == (0, "all agents have left, after 2 s\n")
    assert err == "which agents are still there is not known: cannot reach it\n"


def test_a_host_never_reached_again_is_given_up(drain: Drain) -> None:
    code, out, _ = drain(Host(FULL, ConnectionLostError("cannot reach it")))
    assert (code, out) == (1, "gave up waiting: agents that are still there: 1\n")
    code, out, _ = drain(Host(ConnectionLostError("cannot reach it")))
    assert (code, out) == (1, "gave up waiting: which agents are still there is not known\n")


def test_an_address_refuses_when_its_process_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert not draining.nothing_listens_at(url)
    assert draining.nothing_listens_at(url)


def test_an_address_that_cannot_be_reached_at_all_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def connect(address: Any, **_: Any) -> Any:
        tried.append(address)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    assert not draining.nothing_listens_at("https://host.example")
    assert not draining.nothing_listens_at("http://host.example")
    assert tried == [("host.example", 443), ("host.example", 80)]
