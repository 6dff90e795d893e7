"""The login for users of this machine: who counts as a caller from this machine."""

from types import SimpleNamespace
from typing import Any

import pytest

from meshhost.errors import NotFoundError
from meshhost.server.http.login import _check_loopback


def _request(remote: str | None) -> Any:
    return SimpleNamespace(remote=remote)


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_a_caller_of_this_machine_may_log_in_also_over_ipv6(remote: str) -> None:
    _check_loopback(_request(remote))


@pytest.mark.parametrize("remote", [None, "", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "0.0.0.0"])
def test_a_caller_of_another_machine_sees_no_login(remote: str | None) -> None:
    with pytest.raises(NotFoundError):
        _check_loopback(_request(remote))
