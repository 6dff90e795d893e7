"""`WebhookServer`: a small server for the webhooks of a room server, `room.started`, `room.ended` and `room.call`.

For programs that want to know of rooms, or to do something of their own when a room calls; agents are served by `ServiceHost`.
Who may send is checked as there: with a secret, webhooks must be signed, are fresh and come once; without one, only programs of
this machine may send.
"""

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from meshhost.clock import SystemClock
from meshhost.edge.encodings import refuse_compressed
from meshhost.edge.listener import GuardedSite
from meshhost.edge.watched import watch_requests
from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.calls.admission import parse_event
from meshhost.hosting.calls.guard import CallGuard
from meshhost.hosting.http.bodies import MAX_BODY_BYTES, body_of
from meshhost.settings import read_settings
from meshhost.signals import stop_signals

__all__ = ["CallEvent", "RoomEndedEvent", "RoomStartedEvent", "WebhookServer"]

logger = logging.getLogger(__name__)

BODY_SECONDS = 30.0
USUAL_PORT = 8080


class RoomStartedEvent:
    """A room has begun."""

    def __init__(self, *, room_name: str, room_url: str) -> None:
        self.room_name = room_name
        self.room_url = room_url


class RoomEndedEvent:
    """A room has ended."""

    def __init__(self, *, room_name: str) -> None:
        self.room_name = room_name


class CallEvent:
    """A room calls: `token` is what the program may join it with at `room_url`."""

    def __init__(self, *, room_name: str, room_url: str, token: str, arguments: dict[str, Any] | None = None) -> None:
        self.room_name = room_name
        self.room_url = room_url
        self.token = token
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"<CallEvent {self.room_name!r}>"


class WebhookServer:
    """Override `on_room_started`, `on_room_ended` and `on_call`; or `on_webhook`, which gets every event as it came.

    `host` and `port` are where it listens (default MESHHOST_HOST or 127.0.0.1, MESHHOST_PORT or 8080; a port of 0 is a free
    one), `path` is where webhooks come in. `webhook_secret` (default MESHHOST_WEBHOOK_SECRET) signs them; with
    `validate_webhook_secret=True` one is needed. With an `app` the routes are added there, and the program serves it.
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        webhook_secret: str | None = None,
        app: web.Application | None = None,
        path: str | None = None,
        validate_webhook_secret: bool | None = None,
    ) -> None:
        settings = read_settings()
        given = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None
        secret = webhook_secret or given
        if validate_webhook_secret and secret is None:
            raise SettingsError("webhook_secret: validate_webhook_secret=True needs one, or MESHHOST_WEBHOOK_SECRET")
        if validate_webhook_secret is False:
            secret = None  # then only this machine may send, whatever the environment says
        self._host = host or settings.host or "127.0.0.1"
        self._port = next((each for each in (port, settings.port) if each is not None), USUAL_PORT)
        self._path = path or "/webhook"
        self._guard = CallGuard(secret, clock=SystemClock())
        self._owns_app = app is None
        self._app = (
            web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[refuse_compressed]) if app is None else app
        )
        if self._owns_app:
            watch_requests(self._app)
        self.add_routes(self._app)
        self._runner: web.AppRunner | None = None

    @property
    def app(self) -> web.Application:
        """The application that has the routes."""
        return self._app

    @property
    def port(self) -> int:
        """The port that is listened on; before `start`, the requested one."""
        if self._runner is not None and self._runner.addresses:
            return int(self._runner.addresses[0][1])
        return self._port

    def add_routes(self, app: web.Application) -> None:
        """Add the route of webhooks, and `GET /`, which says that the server lives."""
        app.router.add_post(self._path, self._webhook)
        if self._owns_app:
            app.router.add_get("/", self._ok)

    async def on_webhook(self, *, payload: dict[str, Any]) -> None:
        """Called with each webhook, as `{"event", "data"}`. Calls the method of its event; unknown ones are left alone."""
        data = payload["data"]
        match payload["event"]:
            case "room.started":
                await self.on_room_started(RoomStartedEvent(room_name=data["room_name"], room_url=data["room_url"]))
            case "room.ended":
                await self.on_room_ended(RoomEndedEvent(room_name=data["room_name"]))
            case "room.call":
                await self.on_call(
                    CallEvent(
                        room_name=data["room_name"],
                        room_url=data["room_url"],
                        token=data["token"],
                        arguments=data.get("arguments"),
                    )
                )
            case other:
                logger.info("webhook of an unknown event", extra={"event": str(other)[:100]})

    async def on_room_started(self, event: RoomStartedEvent) -> None:
        """A room has begun; does nothing by default."""

    async def on_room_ended(self, event: RoomEndedEvent) -> None:
        """A room has ended; does nothing by default."""

    async def on_call(self, event: CallEvent) -> None:
        """A room calls; does nothing by default."""

    async def start(self) -> None:
        """Listen. Raises SettingsError when the address cannot be used, or when the program serves its own `app`."""
        if not self._owns_app:
            raise SettingsError("app: this server's routes are in your application: serve that")
        self._guard.explain()
        runner = web.AppRunner(self._app, access_log=None, handle_signals=False, auto_decompress=False)
        await runner.setup()
        try:
            await GuardedSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise SettingsError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from None
        self._runner = runner

    async def stop(self) -> None:
        """Listen no more. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        async with stop_signals() as signals, self:
            await signals.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _ok(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _webhook(self, request: web.Request) -> web.Response:
        signed = None
        try:
            self._guard.check_head(request)
            async with asyncio.timeout(BODY_SECONDS):
                body = await body_of(request)
            signed = self._guard.check(request, body)
            event = parse_event(body)
            if not signed.is_repeated:
                await self.on_webhook(payload={"event": event.event, "data": event.data})
        except CallRefusedError as error:
            return web.json_response({"error": str(error)}, status=error.status)
        except TimeoutError:
            return web.json_response({"error": f"body: it did not arrive within {BODY_SECONDS:g} s"}, status=408)
        except KeyError as missing:
            return web.json_response({"error": f"data.{missing.args[0]}: is required"}, status=400)
        except Exception:  # the program's own code: its sender may try again, and learns nothing of it
            logger.exception("webhook not handled")
            if signed is not None:
                self._guard.forget(signed)
            return web.json_response(
                {"error": "the webhook was not handled; the log of the server says why"}, status=500
            )
        return web.json_response({"ok": True})
