"""`meshhost tenant limit` and `show`: what is asked of the room server, and how limits are shown."""

import json
from typing import Any

import pytest

from meshhost.cli.main import run

SHOWN = {
    "id": "1-2",
    "name": "acme",
    "suspended": None,
    "quota": {"max_rooms": 10, "max_files": None, "requests_per_second": 2.5},
    "use": {"rooms": 3, "files": None},
}

Asked = list[tuple[Any, ...]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    requests: Asked = []

    def manage(*request: Any) -> Any:
        requests.append(request)
        return SHOWN

    monkeypatch.setattr("meshhost.cli.managing.manage", manage)
    return requests


def test_limits_are_numbers_none_or_default(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rooms", "10", "--files", "none", "--stored-bytes", "default", "--requests-per-second", "2.5"]
    assert run(["tenant", "limit", "acme", *options]) == 0
    body = {"max_rooms": 10, "max_files": None, "max_stored_bytes": "default", "requests_per_second": 2.5}
    assert asked == [("PATCH", "/tenants/acme/quota", body)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == ["max_rooms\t3\t10", "max_files\t\tno limit", "requests_per_second\t\t2.5"]


def test_without_a_limit_they_are_only_shown(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tenant", "limit", "acme", "--json"]) == 0
    assert run(["tenant", "show", "acme", "--json"]) == 0
    assert asked == [("GET", "/tenants/acme")] * 2
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [SHOWN] * 2


def test_a_limit_that_is_none_of_these_is_wrong_usage(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tenant", "limit", "acme", "--stored-bytes", "10GB"]) == 2
    assert "--stored-bytes: expected a number, none or default" in capsys.readouterr().err
    assert asked == []
