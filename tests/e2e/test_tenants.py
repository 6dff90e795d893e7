"""Two tenants on one running room server, managed by its operator, with real processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


def send(cli: Cli, text: str) -> None:
    cli.out("queue", "send", "--room", "room", "--queue", "q", "--json", f'"{text}"')


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
