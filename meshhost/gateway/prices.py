"""What tokens cost: `Price`, and how amounts are written.

The operator sets prices per million tokens (`[[prices]]` in `meshhost.toml`); meshhost has none of its own, since they would be
out of date. The meter looks up the price that is in force when a request ends (`ModelPatterns`), and its text becomes a part
of the key of what was used (`meshhost.stores.usage`). The cost is computed when it is read, from whole numbers alone: a price
is in millionths of its currency per million tokens, so the price of one token, and every sum, is a whole number of 1/10^12 of
the currency.
"""

import re
from dataclasses import astuple, dataclass
from decimal import Decimal
from typing import Self

from meshhost.stores.usage import UsageCounts

__all__ = ["DECIMALS", "MOST_PRICE", "Price", "amount_text"]

DECIMALS = 6
"""Decimals of a price per million tokens."""
MOST_PRICE = 10**9
"""Most that a million tokens may cost, in any currency."""
_MICRO = 10**DECIMALS
_TEXT = re.compile(r"([A-Z]{3})((?: [0-9]{1,16}){4})")


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of one model, in millionths of `currency` per million tokens."""

    currency: str
    input: int
    cached_input: int
    cache_write: int
    output: int

    @classmethod
    def of(
        cls,
        currency: str,
        input: Decimal,
        output: Decimal,
        *,
        cached_input: Decimal | None = None,
        cache_write: Decimal | None = None,
    ) -> Self:
        """Make one of prices per million tokens; what is read from or written to a cache costs as other input by default."""
        prices = (
            input,
            input if cached_input is None else cached_input,
            input if cache_write is None else cache_write,
            output,
        )
        return cls(currency, *(int(price * _MICRO) for price in prices))

    @classmethod
    def of_text(cls, text: str) -> Self | None:
        """Read what `as_text` wrote; None for "". Raises ValueError for anything else."""
        if not text:
            return None
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError("expected a currency and four prices")
        return cls(found[1], *map(int, found[2].split()))

    def as_text(self) -> str:
        """The price as it is kept with what was used."""
        return " ".join(map(str, astuple(self)))

    def as_json(self) -> dict[str, str]:
        """The price per million tokens, for people and programs."""
        names = ("input", "cached_input", "cache_write", "output")
        return {
            "currency": self.currency,
            **{name: amount_text(getattr(self, name) * _MICRO) for name in names},
        }

    def cost(self, counts: UsageCounts) -> int:
        """What the tokens cost, exactly, in 1/10^12 of the currency."""
        cached, written = counts.cached_tokens, counts.cache_write_tokens
        plain = max(counts.input_tokens - cached - written, 0)
        return (
            plain * self.input
            + cached * self.cached_input
            + written * self.cache_write
            + counts.output_tokens * self.output
        )


def amount_text(amount: int) -> str:
    """Write an amount in 1/10^12 as a decimal number, exactly: "0.0175", "12"."""
    whole, rest = divmod(amount, 10**12)
    return f"{whole}.{rest:012}".rstrip("0").rstrip(".")
