"""Which addresses participants may have called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from meshhost.errors import SettingsError
from meshhost.server.calling.call_urls import CallUrls

URLS = CallUrls(["http://Host/agents", "https://other:8443", "http://[::1]:9/a%20b/"])


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://host/agents", None),
        ("HTTP://HOST:80/agents/x", "http://host/agents/x"),
        ("http://host/agents/x?a=1&b=%25", "http://host/agents/x?a=1&b=%25"),
        ("http://host/agents/a;v=1/x", None),
        ("http://host/agents/..x/x..", None),
        ("http://host/agents//x", None),
        ("http://host/agents/\u00fc", "http://host/agents/%C3%BC"),
        ("https://other:8443", None),
        ("https://other:8443/any/path", None),
        ("http://[::1]:9/a%20b/c", None),
    ],
)
def test_what_is_at_or_below_a_prefix_may_be_called(url: str, sent: str | None) -> None:
    assert URLS.allowed(url) == (sent or url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/agents",
        "//host/agents",
        "http://host/",
        "http://host/agents2",
        "http://host/AGENTS",
        "http://host/admin",
        "http://host:8080/agents",
        "https://host/agents",
        "ftp://host/agents",
        "http://host./agents",
        "http://host.evil/agents",
        "http://evil/agents",
        "http://host@evil/agents",
        "http://evil@host/agents",
        "http://:x@host/agents",
        "http://evil\\@host/agents",
        "http://host\\evil/agents",
        "http://evil#@host/agents",
        "http://host/agents#x",
        "http://host/agents/../admin",
        "http://host/agents/./../admin",
        "http://host/agents/%2e%2e/admin",
        "http://host/agents/%2E./admin",
        "http://host/agents/..%2fadmin",
        "http://host/agents/..%5cadmin",
        "http://host/agents/%5c..",
        "http://host/agents/..;/admin",
        "http://host/agents/..;a=b/admin",
        "http://host/agents/%2e%2e%3b/admin",
        "http://host/agents/..%3b/admin",
        "http://host/agents/ ../admin",
        "http://host/agents/..%20/admin",
        "http://host/agents/.../admin",
        "http://host/agents/%252e%252e/admin",
        "http://host/agents/%25252e%25252e/admin",
        "http://host/agents/%u002e%u002e/admin",
        "http://host/agents/%c0%ae%c0%ae/admin",
        "http://host/agents/%ef%bc%8e%ef%bc%8e/admin",
        "http://host/agents/\u2024\u2024/admin",
        "http://host/agents/%00",
        "http://host/agents/x%0a",
        "http://host/agents/x\n",
        "http://host/agents/%e2%80%ae",
        "http://host%2fagents",
        "http://host:80:80/agents",
        "http://host:99999/agents",
        "http://[host/agents",
        "http:///agents",
        "http:host/agents",
        "http://host/agents%2fx",
    ],
)
def test_what_is_elsewhere_or_can_be_read_in_two_ways_may_not(url: str) -> None:
    assert URLS.allowed(url) is None


@given(st.text(alphabet="ab./%25cefC;\\ ?#@:", max_size=20))
def test_nothing_that_is_allowed_has_another_path_however_often_it_is_decoded(rest: str) -> None:
    sent = URLS.allowed(f"http://host/agents/{rest}")
    if sent is None:
        return
    path = URL(sent).raw_path
    for _ in range(3):
        assert path.startswith("/agents/")
        assert not {"..", "."} & set(path.replace("\\", "/").split("/"))
        path = URL.build(path=path, encoded=True).path


@pytest.mark.parametrize("prefix", ["", "host", "ftp://host", "http://u:p@host", "http://host?x", "http://host/#x"])
def test_a_prefix_that_is_no_plain_url_is_refused_when_the_server_starts(prefix: str) -> None:
    with pytest.raises(SettingsError, match="call_urls"):
        CallUrls([prefix])
