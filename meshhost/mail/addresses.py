"""Mail addresses: how they are compared, checked and matched with patterns.

Two addresses are the same mailbox here when they are equal without regard to case; `name+tag@domain` belongs to the mailbox
`name@domain`, as at most providers. An address is text that came from outside, so nothing that could end a header line or an
SMTP command passes `is_address`. Pure.
"""

import re
from collections.abc import Iterable
from email.utils import formataddr
from fnmatch import fnmatchcase
from typing import NamedTuple

__all__ = ["Address", "address_key", "domain_of", "is_address", "mailbox_keys", "matches"]

MAX_ADDRESS = 320
# Surrogates stand for bytes that are no UTF-8.
_CHARACTER = r"[^\s<>()\[\],;:\\\"@\x00-\x1f\x7f\ud800-\udfff]"
_ADDRESS = re.compile(rf"{_CHARACTER}{{1,64}}@{_CHARACTER}{{1,255}}")


class Address(NamedTuple):
    """A mailbox as a header names it: the name for people ("" when there is none), and the address."""

    name: str
    address: str

    def __str__(self) -> str:
        return formataddr((self.name, self.address)) if self.address.isascii() else self.address


def is_address(text: str) -> bool:
    """Whether this is an address that can be written to."""
    return len(text) <= MAX_ADDRESS and _ADDRESS.fullmatch(text) is not None and ".." not in text.partition("@")[2]


def address_key(address: str) -> str:
    """Return the form in which addresses are compared: lower case, and the domain as it is on the wire."""
    local, at, domain = address.strip().strip("<>").rpartition("@")
    try:
        domain = domain.encode("idna").decode().lower() if domain and not domain.isascii() else domain.lower()
    except UnicodeError:
        domain = domain.lower()
    return f"{local.casefold()}{at}{domain}"


def mailbox_keys(address: str) -> tuple[str, ...]:
    """Return the keys of the mailboxes that an address may mean: itself, and without a `+tag`."""
    key = address_key(address)
    local, _, domain = key.rpartition("@")
    plain = local.partition("+")[0]
    return (key,) if plain in ("", local) else (key, f"{plain}@{domain}")


def domain_of(address: str) -> str:
    """Return the domain of an address, "" when it has none."""
    return address_key(address).rpartition("@")[2] if "@" in address else ""


def matches(address: str, patterns: Iterable[str]) -> bool:
    """Whether an address is one of these: each an address, `*@example.com`, `@example.com` or `example.com`."""
    key = address_key(address)
    for pattern in patterns:
        wanted = pattern.strip().casefold()
        if "@" not in wanted:
            wanted = f"*@{wanted}"
        elif wanted.startswith("@"):
            wanted = f"*{wanted}"
        if fnmatchcase(key, wanted):
            return True
    return False
