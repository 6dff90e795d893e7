"""What `meshhost room services` makes of what the room server tells of its calls."""

import json
from typing import Any

import pytest

from meshhost.cli import connect
from meshhost.cli.main import run
from meshhost.identity.keys import encode_api_key, new_api_key

PROJECT = "11111111-2222-3333-4444-555555555555"


def call(identity: str, **facts: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("outcome", "called_at", "next_call_at", "error"))
    return {"identity": identity, "url": "http://h/w", "is_present": False} | nothing | facts


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server answers, to be filled by the test."""
    answered: list[dict[str, Any]] = []

    def get_json(access: Any, path: str) -> Any:
        assert path == f"/accounts/projects/{PROJECT}/rooms/demo/calls"
        return {"calls": answered}

    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(new_api_key(PROJECT)))
    monkeypatch.setattr(connect, "get_json", get_json)
    return answered


def test_each_service_is_shown_with_its_state_and_its_next_call(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    calls += [
        call("a", is_present=True, outcome="joined", called_at=0.0),
        call("b", outcome="joined", called_at=0.0, next_call_at=60.0),
        call("c", outcome="refused", called_at=0.0, error="no\nmore"),
        call("d"),
    ]
    assert run(["room", "services", "demo"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a\tpresent\thttp://h/w\t1970-01-01 00:00:00Z\t\t",
        "b\tgone\thttp://h/w\t1970-01-01 00:00:00Z\t1970-01-01 00:01:00Z\t",
        "c\trefused\thttp://h/w\t1970-01-01 00:00:00Z\t\tno more",
        "d\tnot called yet\thttp://h/w\t\t\t",
    ]


def test_the_facts_are_there_as_json(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    calls.append(call("a"))
    assert run(["room", "services", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == calls


def test_a_room_without_services_says_so(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["room", "services", "demo"]) == 0
    assert "no service is called into this room" in capsys.readouterr().err
