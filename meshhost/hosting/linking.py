"""A host that dials in: it opens a link to a room server, and gets its calls and the connections of its agents over it.

`HostLink` announces what the host is, reports how loaded it is when that has changed, and answers calls as `http.routes` does
those by HTTP: intake, admission, then `HostedAgents.answer`. There is no signature: who called is who was dialled, with a key.
The room's address that a call names is replaced by one at the server that was dialled, which is the one that this host can
reach. `protocol_for` is how an agent joins its room: over the link where the room is at that server, else over a WebSocket of
its own. Agents in processes of their own always use the latter.

Tasks: "link" keeps the link up, "host channel" reads the calls of one link, one task answers each call. All belong to the
`TaskOwner` of this object and end with `stop`, which the assembly calls when the agents have left.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from meshhost.errors import CallRefusedError, ConnectionLostError, InvalidRequestError, RoomRefusedError, SettingsError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.calls.admission import AllowedRooms, admit
from meshhost.hosting.calls.hosted_agents import HostedAgents
from meshhost.hosting.calls.intake import Intake
from meshhost.hosting.calls.route import Routes
from meshhost.hosting.observe.load import Load
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.hosting.startup import StartUp
from meshhost.link.dialling import LinkDialler, LinkedRoom
from meshhost.link.rooms import (
    HOST_REQUEST,
    Announcement,
    Answer,
    Call,
    HostPath,
    Report,
    dumped,
    parse_server_message,
)
from meshhost.link.running import Link, LinkChannel
from meshhost.tasks import TaskOwner
from meshhost.transport.base import ClientProtocol
from meshhost.transport.websocket_client import WebSocketClientProtocol

__all__ = ["HostLink", "LinkTo", "websocket_base"]

logger = logging.getLogger(__name__)

_REPORT_SECONDS = 0.5
# A channel that the server closes, such as for a mistake in the announcement, is opened again after this time.
_CHANNEL_SECONDS = 5.0
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LinkTo:
    """The room server that a host dials, with an API key, and what it says of itself there.

    `rooms` are the names of rooms, or shell patterns, in which its agents belong; `labels` are compared with what services
    require. Raises SettingsError.
    """

    url: str
    api_key: str = field(repr=False)
    rooms: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        websocket_base(self.url)
        if not self.api_key:
            raise SettingsError("room_server: it needs an API key: api_key= or MESHHOST_API_KEY; see `meshhost setup`")
        if isinstance(self.rooms, str):
            raise SettingsError("rooms: expected a list of names or patterns, not one text")
        if not all(isinstance(part, str) for item in self.labels.items() for part in item):
            raise SettingsError("labels: expected texts, such as {'gpu': 'true'}")


class HostLink:
    """The link of one host. `name` is that of its service, `max_agents` how many it takes."""

    def __init__(
        self,
        to: LinkTo,
        *,
        name: str,
        max_agents: int,
        routes: Routes,
        intake: Intake,
        agents: HostedAgents,
        live: Callable[[], int],
        load: Callable[[], Load],
        startup: StartUp,
        metrics: HostMetrics,
    ) -> None:
        self._to = to
        self._name = name
        self._max_agents = max_agents
        self._routes = routes
        self._intake = intake
        self._agents = agents
        self._live = live
        self._load = load
        self._startup = startup
        self._metrics = metrics
        self.id = uuid.uuid4().hex[:12]
        self._base = websocket_base(to.url)
        self._allowed = AllowedRooms([self._base])
        self._tasks = TaskOwner("link")
        self.dialler: LinkDialler | None = None
        self._accepted = 0

    @property
    def is_connected(self) -> bool:
        """Whether the link is up now."""
        return self.dialler is not None and self.dialler.is_connected

    @property
    def url(self) -> str:
        """The room server's address, without credentials."""
        return self._base

    def start(self) -> None:
        """Dial, and keep the link up. Does not wait for it: the room server may be started later."""
        dial = WebSocketClientProtocol(url=f"{self._base}/link", token=self._to.api_key)
        self.dialler = LinkDialler(dial, on_new=self._linked)
        self._tasks.spawn(self.dialler.run(), name="dialler")

    async def stop(self) -> None:
        """Say goodbye, and dial no more. The agents must have left."""
        await self._tasks.stop(timeout=_STOP_SECONDS)

    def protocol_for(self, request: CallRequest) -> ClientProtocol:
        """How the agent of this call joins its room."""
        if self.dialler is not None and self._allowed.allow(request.room_url):
            return LinkedRoom(self.dialler, room=request.room_name, url=request.room_url, token=request.token)
        return WebSocketClientProtocol(url=request.room_url, token=request.token)

    def _linked(self, link: Link) -> None:
        logger.info("linked to the room server", extra={"url": self._base, "host": self.id})
        self._tasks.spawn(self._serve(link), name="host channel")

    async def _serve(self, link: Link) -> None:
        """Have a channel for calls for as long as this link lasts."""
        dialler = self.dialler
        while dialler is not None and link.end is None and dialler.link is link:
            try:
                await self._take_calls(await dialler.open(HOST_REQUEST))
            except RoomRefusedError as error:
                logger.warning("the room server takes no calls for this host", extra={"reason": str(error)})
            except ConnectionLostError as error:
                if link.end is None:
                    logger.warning("the channel for calls ended", extra={"reason": str(error)})
            except Exception:  # a host without this channel would get no calls any more, and nobody would know
                logger.exception("the channel for calls failed, and is opened again")
            if link.end is None:
                await asyncio.sleep(_CHANNEL_SECONDS)

    async def _take_calls(self, channel: LinkChannel) -> None:
        """Announce the host and answer calls. Raises ConnectionLostError at the end of the channel."""
        self._accepted = 0
        report = self._report()
        await channel.send((dumped(self._announcement(report)),))
        reporting = self._tasks.spawn(self._keep_reporting(channel, report), name="reports")
        try:
            while True:
                data = await channel.receive()
                try:
                    call = parse_server_message(data)
                except InvalidRequestError as error:
                    logger.warning("a message of the room server cannot be read", extra={"reason": str(error)})
                    continue
                if call is not None:
                    self._tasks.spawn(self._answer(channel, call), name=f"call {call.path}")
        finally:
            reporting.cancel()
            channel.abort()

    async def _keep_reporting(self, channel: LinkChannel, last: Report) -> None:
        try:
            while True:
                await asyncio.sleep(_REPORT_SECONDS)
                report = self._report()
                if report != last:
                    await channel.send((dumped(report),))
                    last = report
        except ConnectionLostError:
            pass  # its reader opens another one

    def _announcement(self, report: Report) -> Announcement:
        paths = [
            HostPath(path=route.path, identity=route.identity or "agent", api=route.permissions)
            for route in self._routes.values()
        ]
        return Announcement(
            name=self._name,
            host=self.id,
            paths=paths,
            rooms=list(self._to.rooms),
            labels=dict(self._to.labels),
            max_agents=self._max_agents,
            report=report,
        )

    def _report(self) -> Report:
        load = self._load()
        refuses: str | None = self._intake.refuses
        if refuses is None and (full := [reason for reason in load.reasons if reason != "agents"]):
            refuses = f"overloaded ({', '.join(full)})"
        # Two digits: noise must not cause reports.
        busy = round(min(max(load.lag, load.cpu, load.memory), 1.0), 2)
        return Report(agents=self._live(), load=busy, calls=self._accepted, refuses=refuses)

    async def _answer(self, channel: LinkChannel, call: Call) -> None:
        tenant: str | None = None
        status = 500
        try:
            request = self._admitted(call)
            tenant = request.tenant
            route = self._routes.get(call.path)
            if route is None:
                raise CallRefusedError("no agent at this path", status=404)  # noqa: TRY301
            if self._routes.needs_process(route):
                self._startup.check()
            agent = await self._agents.answer(route, request)
            self._accepted += 1
            status = 200
            answer = Answer(id=call.id, status=200, spawn_id=agent.id, state=agent.state.value)
        except CallRefusedError as error:
            status = error.status
            answer = Answer(id=call.id, status=status, error=str(error)[:4000], retry_after=error.retry_after)
        except Exception:
            logger.exception("a call over the link failed")
            answer = Answer(id=call.id, status=500, error="the host failed; its log says why")
        self._metrics.count_call(call.path if call.path in self._routes else "", status, tenant)
        packet = (dumped(answer),)
        try:
            if not channel.send_at_once(packet):
                await channel.send(packet)
        except ConnectionLostError:
            logger.info("a call was answered when its link was gone", extra={"path": call.path})

    def _admitted(self, call: Call) -> CallRequest:
        """Raises CallRefusedError."""
        self._intake.check()
        data: dict[str, Any] = dict(call.data)
        name = data.get("room_name")
        if isinstance(name, str):
            data["room_url"] = f"{self._base}/rooms/{quote(name)}"
        return admit(data, self._allowed)


def websocket_base(url: str) -> str:
    """The WebSocket address of a room server, without a slash at its end. Raises SettingsError."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise SettingsError(f"room_server: expected a URL such as https://rooms.example.com, not {url!r}")
    return parts._replace(scheme=scheme).geturl().rstrip("/")
