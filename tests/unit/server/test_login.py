"""The login for users of this machine: which callers count as programs of this machine."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from meshhost.edge.same_machine import is_local_program


def _request(remote: str | None) -> web.Request:
    made = make_mocked_request("GET", "/oauth/authorize", headers={"Host": "localhost:8080"})
    return made.clone(remote=remote)  # type: ignore[arg-type]


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_a_caller_of_this_machine_may_log_in_also_over_ipv6(remote: str) -> None:
    assert is_local_program(_request(remote))


@pytest.mark.parametrize("remote", [None, "", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "0.0.0.0"])
def test_a_caller_of_another_machine_sees_no_login(remote: str | None) -> None:
    assert not is_local_program(_request(remote))
