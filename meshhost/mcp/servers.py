"""Where an MCP server is and how it is reached: a program that we start, or an address.

Both are plain values, made by the program that configures an agent. What a server is given is what they say and nothing else:
the environment of a program that we start holds no variable of ours, and the headers of an address go to its origin only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshhost.errors import InvalidRequestError

if TYPE_CHECKING:
    import httpx2

__all__ = ["HttpServer", "StdioServer"]


@dataclass(frozen=True, slots=True)
class StdioServer:
    """A program that speaks MCP on its standard input and output. It is started in a process group of its own.

    Of our environment it gets HOME, LOGNAME, PATH, SHELL, TERM and USER; everything else must be in `env`. It runs as the same
    user as we do, so it can read what that user can.
    """

    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None

    def __post_init__(self) -> None:
        if not self.command:
            raise InvalidRequestError("command", "an MCP server needs the program that is started")


@dataclass(frozen=True, slots=True)
class HttpServer:
    """An MCP server at an address (streamable HTTP). `headers` go with each request; `auth` adds a token (`oauth.py`)."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: "httpx2.Auth | None" = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidRequestError("url", f"expected an http or https address, got {self.url!r}")
        if parts.username is not None:
            raise InvalidRequestError("url", "pass a password as a header, not in the address")
