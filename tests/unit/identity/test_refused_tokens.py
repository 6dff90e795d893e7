"""Refused tokens are remembered with their secret, for a while, and only so many."""

from meshhost.identity.refused_tokens import RefusedTokens
from meshhost.testing.clock import FakeClock


def test_a_refused_token_is_known_with_the_secret_that_it_was_checked_with() -> None:
    refused = RefusedTokens()
    refused.add("token", "secret")
    assert ("token", "secret") in refused
    assert ("token", "other") not in refused
    assert ("other", "secret") not in refused


def test_a_refused_token_is_forgotten_after_a_while() -> None:
    clock = FakeClock()
    refused = RefusedTokens(seconds=60.0, clock=clock)
    refused.add("token", "secret")
    clock.skip(59.0)
    assert ("token", "secret") in refused
    clock.skip(2.0)
    assert ("token", "secret") not in refused


def test_of_too_many_the_one_that_was_refused_first_is_forgotten() -> None:
    refused = RefusedTokens(most=2)
    for text in ("first", "second", "first", "third"):
        refused.add(text, "secret")
    assert ("second", "secret") not in refused
    assert ("first", "secret") in refused
    assert ("third", "secret") in refused


def test_any_text_may_be_a_token() -> None:
    refused = RefusedTokens()
    refused.add("\udcff", "\ud800")
    assert ("\udcff", "\ud800") in refused
