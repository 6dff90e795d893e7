"""Which service an agent was called for is read from its token."""

from meshhost.identity.called import called_at


def test_what_is_no_token_was_called_nowhere() -> None:
    assert called_at("no token") is None
