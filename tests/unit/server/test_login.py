"""The login for users of this machine: which callers count as programs of this machine."""

from types import SimpleNamespace
from typing import Any

import pytest
from yarl import URL

from meshhost.edge.same_machine import is_local_program


def _request(remote: str | None) -> Any:
    return SimpleNamespace(remote=remote, headers=_Headers(), url=URL("http://localhost:8080/oauth/authorize"))


class _Headers(dict[str, str]):
    def getall(self, name: str, default: list[str]) -> list[str]:
        return [self[name]] if name in self else default


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_a_caller_of_this_machine_may_log_in_also_over_ipv6(remote: str) -> None:
    assert is_local_program(_request(remote))


@pytest.mark.parametrize("remote", [None, "", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "0.0.0.0"])
def test_a_caller_of_another_machine_sees_no_login(remote: str | None) -> None:
    assert not is_local_program(_request(remote))
