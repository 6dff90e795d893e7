"""A service host that a room server calls: it checks the signature, and the test sees each call and answers as the agent."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from meshhost.identity.webhooks import verify_webhook
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["SECRET", "CalledHost", "agent_of", "called_host"]

SECRET = "webhook-secret-of-forty-characters-or-so"


class CalledHost:
    """A service host: checks the signature, notes the event, and lets the test join as the agent."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue()
        self.answers: list[web.Response] = []
        self.server: TestServer

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        verify_webhook(body, request.headers["Meshagent-Signature"], secret=SECRET, now=time.time())
        assert request.headers["Meshagent-Signature"] == request.headers["Meshhost-Signature"]
        message = await request.json()
        self.events.put_nowait((request.path, message["event"], message["data"]))
        return self.answers.pop(0) if self.answers else web.json_response({"ok": True})


@asynccontextmanager
async def called_host() -> AsyncIterator[CalledHost]:
    """A running one."""
    host = CalledHost()
    app = web.Application()
    app.router.add_post("/{path:.*}", host.handle)
    async with TestServer(app) as host.server:
        yield host


def agent_of(data: dict[str, Any]) -> RoomClient:
    """The agent that a call asks for; not connected yet."""
    return RoomClient(protocol=WebSocketClientProtocol(url=data["room_url"], token=data["token"]))
