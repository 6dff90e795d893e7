"""Which hosts are this machine."""

import pytest

from meshhost.loopback import is_loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LOCALHOST"]
)
def test_this_machine_in_all_forms(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [None, "", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example", "127.0.0.1.example", "[", "0.0.0.0"]
)
def test_any_other_host_is_not_this_machine(host: str | None) -> None:
    assert not is_loopback(host)
