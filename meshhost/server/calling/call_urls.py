"""Which addresses participants may have called: the URL prefixes of `call_urls`, compared as parsed URLs.

`agent.call` makes the server send a request for a participant, so it must not reach an address that the operator did not list,
whatever the address does. `CallUrls.allowed` is asked before anything is sent. Scheme, host and port must be those of a prefix
and the path must be at or below its path, segment by segment. Proxies and frameworks read a path in more ways than one: they
decode it again (`%252e`), drop parameters of segments (`..;`), take a backslash for a slash or a wide dot for a dot. A URL that
can be read in two ways is refused instead of guessed at. Pure.
"""

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote

from yarl import URL

from meshhost.errors import SettingsError

__all__ = ["CallUrls", "parsed_call_url"]

# Parsers disagree about these: some drop them, some end the host or the path there.
_UNSAFE = re.compile(r"[\s\\\x00-\x1f\x7f]")


class CallUrls:
    """The prefixes. Raises SettingsError for one that is no plain http or https URL."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._prefixes = [_prefix(text) for text in prefixes]

    def allowed(self, text: str) -> str | None:
        """Return the URL as it is to be sent, or None when it may not be called."""
        url = parsed_call_url(text)
        if url is None or not any(_is_at_or_below(url, prefix) for prefix in self._prefixes):
            return None
        return str(url)


def parsed_call_url(text: str) -> URL | None:
    """Return an http or https URL that can be read in one way only; None for all others."""
    if _UNSAFE.search(text):
        return None
    try:
        url = URL(text)
        decoded = unquote(url.raw_path, errors="strict")
        _ = url.host  # decoded when it is asked for, which fails for some names that begin with xn--
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not url.raw_host or url.user is not None or url.password is not None:
        return None
    # What is encoded twice is decoded once more by somebody; characters that nobody sees are in no honest path.
    if url.raw_fragment or "%" in decoded or "\\" in decoded or not decoded.isprintable():
        return None
    segments = [unicodedata.normalize("NFKC", segment).partition(";")[0].strip() for segment in decoded.split("/")]
    return None if any(segment and not segment.strip(".") for segment in segments) else url


def _prefix(text: str) -> URL:
    url = parsed_call_url(text)
    if url is None or url.raw_query_string:
        raise SettingsError(
            f"server.call_urls: {text!r}: expected an http or https URL without user, query and dots, such as https://host/agents"
        )
    return url


def _is_at_or_below(url: URL, prefix: URL) -> bool:
    if (url.scheme, url.raw_host, url.port) != (prefix.scheme, prefix.raw_host, prefix.port):
        return False
    path = prefix.raw_path.rstrip("/")
    return url.raw_path == path or url.raw_path.startswith(path + "/")
