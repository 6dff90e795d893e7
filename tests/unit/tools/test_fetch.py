import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError
from meshhost.tools.fetch import GuardedResolver, check_url, fetch, is_public

PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2001:db8::1", "::127.0.0.1", "::10.0.0.1",
]  # fmt: skip


class Names:
    def __init__(self, *addresses):
        self.addresses = addresses
        self.is_closed = False

    async def resolve(self, host, port=0, family=0):
        return [{"host": address, "port": port} for address in self.addresses]

    async def close(self):
        self.is_closed = True


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_our_own_network_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"])
def test_other_addresses_are_public(address):
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_counts_the_same_inside_an_ipv6_one(address):
    assert is_public(ipaddress.ip_address(f"::ffff:{address}")) == is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.com/a", "gopher://example.com", "http://", "/a", "data:,x", "http://[x",
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://0x7f.0.0.1./", "http://xn--a/",
        *(f"http://[{a}]/" if ":" in a else f"http://user@{a}:80/" for a in PRIVATE),
    ],
)  # fmt: skip
def test_a_url_that_leads_inside_is_refused(url):
    with pytest.raises(InvalidRequestError):
        check_url(url)


def test_a_url_of_the_internet_is_taken():
    assert check_url("https://example.com/a?b=c").host == "example.com"
    assert check_url("http://1.1.1.1/").host == "1.1.1.1"


async def test_a_name_is_refused_when_any_of_its_addresses_leads_inside():
    names = Names("1.1.1.1", "127.0.0.1")
    resolver = GuardedResolver(names)
    with pytest.raises(InvalidRequestError):
        await resolver.resolve("rebind.example", 80)
    await resolver.close()
    assert names.is_closed


async def test_the_addresses_checked_are_the_ones_used():
    assert [e["host"] for e in await GuardedResolver(Names("1.1.1.1")).resolve("a.example", 80)] == ["1.1.1.1"]


async def test_a_name_that_means_this_machine_is_refused_on_the_way():
    with pytest.raises(InvalidRequestError, match="public internet"):
        await fetch("http://localhost:9/", limit=10, timeout=5)
