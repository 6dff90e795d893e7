"""Speaks MCP over HTTP word for word, so that tests see and send what a library would hide."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

__all__ = ["STATELESS", "McpWire"]

STATELESS = "2026-07-28"
_META = "io.modelcontextprotocol/"


class McpWire:
    """Requests to one room with one credential."""

    def __init__(self, http: aiohttp.ClientSession, url: str, bearer: str) -> None:
        self.http = http
        self.url = url
        self.headers = {"Authorization": f"Bearer {bearer}", "Accept": "application/json, text/event-stream"}

    def stateless(
        self, method: str, params: Mapping[str, Any] | None = None, **more: Any
    ) -> tuple[dict[str, Any], Any]:
        """Headers and body of a request that stands alone."""
        given = dict(params or {})
        meta = {f"{_META}protocolVersion": STATELESS, f"{_META}clientCapabilities": {}, **given.pop("_meta", {})}
        headers = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method}
        if "name" in given:
            headers["Mcp-Name"] = str(given["name"])
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**given, "_meta": meta}, **more}
        return headers, body

    @asynccontextmanager
    async def sending(self, headers: Mapping[str, str], body: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A POST; what is not text is sent as JSON."""
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        sent = io.BytesIO(text.encode() if isinstance(text, str) else text)
        all_headers = {**self.headers, "Content-Type": "application/json", **headers}
        async with self.http.post(self.url, headers=all_headers, data=sent) as response:
            yield response

    async def post(self, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        """Status and JSON of the answer; of a stream, its last message."""
        async with self.sending(headers, body) as response:
            if response.content_type == "text/event-stream":
                *_, last = [message async for message in messages_of(response)]
                return response.status, last
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The result of a request that stands alone, which must be no error."""
        status, answer = await self.post(*self.stateless(method, params))
        assert status == 200, answer
        return answer["result"]

    async def call(self, name: str, **arguments: Any) -> Any:
        """The result of a tool."""
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def names(self) -> list[str]:
        """The names of the tools."""
        return [tool["name"] for tool in (await self.ask("tools/list"))["tools"]]

    async def begin(self, version: str = "2025-11-25") -> dict[str, str]:
        """Begin a session; returns the headers of its requests."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        async with self.sending({}, body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return {
                "Mcp-Session-Id": response.headers["Mcp-Session-Id"],
                "MCP-Protocol-Version": answer["result"]["protocolVersion"],
            }


async def messages_of(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The messages of a stream, as they come."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))
