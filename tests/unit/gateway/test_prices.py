"""Prices are kept as whole numbers, and a cost is exact."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.gateway.prices import DECIMALS, MOST_PRICE, Price, amount_text
from meshhost.stores.usage import UsageCounts

prices = st.decimals(0, MOST_PRICE, places=DECIMALS)
tokens = st.integers(0, 10**15)


@given(prices, prices, prices, prices, tokens, tokens, tokens, tokens)
def test_a_cost_is_exact_however_many_tokens_there_are(
    input: Decimal, cached: Decimal, write: Decimal, output: Decimal, plain: int, read: int, written: int, out: int
) -> None:
    price = Price.of("EUR", input, output, cached_input=cached, cache_write=write)
    counts = UsageCounts(1, plain + read + written, read, out, cache_write_tokens=written)

    micro = [int(each.scaleb(DECIMALS)) for each in (input, cached, write, output)]
    assert price.cost(counts) == sum(a * b for a, b in zip(micro, (plain, read, written, out), strict=True))
    assert Price.of_text(price.as_text()) == price


def test_what_a_cache_gives_and_takes_costs_as_other_input_unless_it_has_a_price() -> None:
    price = Price.of("USD", Decimal("1.25"), Decimal(10))

    assert price.as_json() == {
        "currency": "USD",
        "input": "1.25",
        "cached_input": "1.25",
        "cache_write": "1.25",
        "output": "10",
    }
    cheap = Price.of("USD", Decimal("1.25"), Decimal(10), cached_input=Decimal("0.0375"), cache_write=Decimal(0))
    assert cheap.as_text() == "USD 1250000 37500 0 10000000"
    assert amount_text(cheap.cost(UsageCounts(1, 1_000_000, 500_000, 7, cache_write_tokens=500_000))) == "0.01882"


def test_more_of_the_cache_than_input_costs_no_less_than_nothing() -> None:
    price = Price.of("USD", Decimal(1), Decimal(1), cached_input=Decimal(0))
    assert price.cost(UsageCounts(1, input_tokens=5, cached_tokens=9)) == 0


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (1, "0.000000000001"), (10**12, "1"), (12 * 10**12 + 5 * 10**11, "12.5")]
)
def test_amounts_are_written_as_decimal_numbers(amount: int, text: str) -> None:
    assert amount_text(amount) == text


def test_no_price_is_no_text_and_anything_else_is_refused() -> None:
    assert Price.of_text("") is None
    for text in ("USD", "USD 1 2 3", "usd 1 2 3 4", "USD 1 2 3 -4", "USD 1 2 3 4\n", "USD 1 2 3 " + "9" * 17):
        with pytest.raises(ValueError, match="four prices"):
            Price.of_text(text)
