"""Keeps OAuth tokens for MCP servers, those of each tenant apart.

A host works for many tenants, and two of them may use the same MCP server, each with an account of its own there. A token is
therefore kept by tenant *and* server, and by user where an agent acts for several: `FileTokens.of` returns storage that is
bound to all three, and what it reads must say the same again. Nothing asks for a token by server alone.

The files are for their owner only (0600, in a folder of 0700) and written whole or not at all. They are not encrypted: who can
read the files of the user that a host runs as has its tokens.
"""

import asyncio
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import BaseModel, ValidationError

from meshhost.errors import InvalidRequestError

__all__ = ["FileTokens", "ServerTokens"]

M = TypeVar("M", bound=BaseModel)


class ServerTokens:
    """The tokens of one tenant, user and server: an `mcp.client.auth.TokenStorage`."""

    def __init__(self, path: Path, owner: dict[str, str]) -> None:
        self._path = path
        self._owner = owner
        self._lock = asyncio.Lock()

    async def get_tokens(self) -> OAuthToken | None:
        """The stored tokens, if there are any."""
        return _parsed(OAuthToken, (await self._read()).get("tokens"))

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Store tokens. Raises OSError."""
        await self._change("tokens", tokens.model_dump(mode="json", exclude_none=True))

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """What this client is to the authorization server, if it registered."""
        return _parsed(OAuthClientInformationFull, (await self._read()).get("client"))

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Store the registration. Raises OSError."""
        await self._change("client", client_info.model_dump(mode="json", exclude_none=True))

    async def replace(self, tokens: OAuthToken, client_info: OAuthClientInformationFull | None) -> None:
        """Store both in place of what is stored, in one write. Raises OSError."""
        values = {"tokens": tokens, "client": client_info}
        stored = {k: v.model_dump(mode="json", exclude_none=True) for k, v in values.items() if v is not None}
        async with self._lock:
            await asyncio.to_thread(self._write, stored)

    async def _read(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._load)

    async def _change(self, name: str, value: Any) -> None:
        async with self._lock:
            await asyncio.to_thread(lambda: self._write({**self._load(), name: value}))

    def _load(self) -> dict[str, Any]:
        try:
            stored = json.loads(self._path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        # A file that was copied or renamed is nobody's.
        return stored if isinstance(stored, dict) and stored.get("owner") == self._owner else {}

    def _write(self, stored: dict[str, Any]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent)  # for the owner only
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({**stored, "owner": self._owner}, file)
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


class FileTokens:
    """Tokens in files below `folder`, which is made with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, *, tenant: str, server: str, user: str = "") -> ServerTokens:
        """The tokens of a tenant (and of one of its users) for the server at this address. Raises InvalidRequestError."""
        if not tenant:
            raise InvalidRequestError("tenant", "tokens are kept by tenant: which one is it?")
        owner = {"tenant": tenant, "user": user, "server": server}
        digest = hashlib.sha256(json.dumps(owner, sort_keys=True).encode()).hexdigest()
        return ServerTokens(self._folder / f"{digest}.json", owner)


def _parsed(model: type[M], value: Any) -> M | None:
    if value is None:
        return None
    try:
        return model.model_validate(value)
    except ValidationError:  # of another version of the library: log in again
        return None
