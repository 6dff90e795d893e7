"""`GET /link`: hosts that dial in, over one WebSocket each.

A link is opened with an API key of a tenant (role developer or more) or with the operator's key. Over a tenant's link only
participants of that tenant may come, and only its rooms call; the operator's serves all tenants. Each channel is either the
host's own (`host_channel.py`), or a participant, who joins its room as over a WebSocket
(`joining.py`): its token is checked as any other, and it is counted in the quotas of its tenant.

A lost link is kept for `resume_seconds`: its participants stay in their rooms and what they are sent waits. Then the link ends,
its participants leave their rooms, and the agents of the host are called elsewhere.

Tasks: that of the HTTP request reads the link while it is connected; each channel has one, owned by `LinkRoutes`. Links end
when their key is revoked or expires, their tenant is suspended or deleted, or the server stops.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from aiohttp import web

from meshhost.errors import (
    AccessDeniedError,
    ConnectionLostError,
    InvalidRequestError,
    MeshhostError,
    RemoteProtocolError,
    TenantSuspendedError,
    TokenError,
)
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantToken
from meshhost.link.core import GoodbyeCode
from meshhost.link.frames import Kind, pack, pack_reason
from meshhost.link.greeting import Hello, LinkLimits, read_hello
from meshhost.link.rooms import RoomRequest, parse_request
from meshhost.link.running import Link, LinkChannel
from meshhost.protocol.connection import NO_RESUME, RESUME_HEADER
from meshhost.protocol.frames import CLIENT_SLICE
from meshhost.server.calling.linked import LinkedHosts
from meshhost.server.config import LinkConfig
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability
from meshhost.server.http.access import Access
from meshhost.server.http.errors import INTERNAL_ERROR, status_of, stopping_response
from meshhost.server.http.sockets import arriving_for
from meshhost.server.joining import Joining
from meshhost.server.links.host_channel import HostChannels
from meshhost.server.links.host_link import HostLink, LinkTransport
from meshhost.server.wire.dialect import Handshake
from meshhost.tasks import TaskOwner
from meshhost.transport.websocket_server import AiohttpTransport

__all__ = ["LinkRoutes"]

logger = logging.getLogger(__name__)

# About eight times what a link sends at once.
_MAX_FRAME_BYTES = 256 * 1024
_HELLO_SECONDS = 10.0
_OPERATOR_MAX = 10_000
# Channels of hosts that one link may have: one host is usual, and it may open the next before the last is over.
_MAX_HOSTS = 8


class LinkRoutes:
    """Serves `/link` (None as `config`: answers 404 that says how to turn it on)."""

    def __init__(self, config: LinkConfig | None, access: Access, joining: Joining, hosts: LinkedHosts) -> None:
        self._config = config
        self._access = access
        self._joining = joining
        self._channels = HostChannels(hosts, seconds=0.0 if config is None else config.call_seconds)
        self._links: dict[str, HostLink] = {}
        self._tasks = TaskOwner("links")

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.add_routes([web.get("/link", self._handle)])

    def end_of_keys(self, key_ids: Collection[str]) -> None:
        """End the links that these keys opened, which were revoked."""
        self._end(lambda each: each.key_id in key_ids, "the API key was revoked")

    def end_of_tenants(self, closed: Mapping[str, str]) -> None:
        """End the links of these tenants, which are suspended or deleted."""
        self._end(lambda each: each.tenant in closed, "the tenant is suspended or deleted")

    async def stop(self, *, timeout: float) -> None:
        """End all links. Idempotent."""
        for each in list(self._links.values()):
            each.link.stop(GoodbyeCode.STOPPING, "the room server is stopping")
        await self._tasks.stop(timeout=timeout)

    def _end(self, which: Callable[[HostLink], bool], text: str) -> None:
        for each in list(self._links.values()):
            if which(each):
                logger.warning("a link is ended", extra={"tenant": each.tenant, "reason": text})
                each.link.stop(GoodbyeCode.ACCESS_REVOKED, text)
                self._forget(each)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        tenant, key_id = self._owner(request)
        config = self._config
        if config is None:
            text = "this room server takes no links: `meshhost room serve --links`, or links.enabled in its file"
            return web.json_response({"error": text}, status=404)
        if self._joining.is_stopping:
            return stopping_response()
        socket = web.WebSocketResponse(autoping=False, max_msg_size=_MAX_FRAME_BYTES, compress=False, timeout=5.0)
        account = self._joining.account(tenant or "")
        arriving = arriving_for(request, account, self._joining, most=_MAX_FRAME_BYTES)
        try:
            await socket.prepare(request)
            transport = LinkTransport(socket, heartbeat_seconds=config.heartbeat_seconds, connection=request.transport)
            if arriving is not None:
                transport.taken = lambda: account.give_back(arriving.take())
                arriving.attach(make_room=lambda: False, end=lambda _: transport.abort())
            await self._serve(request, transport, tenant, key_id, config)
        finally:
            if arriving is not None:
                arriving.close()
            account.close()
        return socket

    def _owner(self, request: web.Request) -> tuple[TenantId | None, str | None]:
        """The tenant of the link (None: the operator) and the id of its key. Raises TokenError, AccessDeniedError."""
        if self._access.is_operator(request):
            return None, None
        holder = self._access.permitted(request)
        if holder.key_id is None:
            raise AccessDeniedError("a link needs an API key, not a login")
        return TenantId(holder.project), holder.key_id

    def _check_still(self, request: web.Request) -> None:
        """Raise AccessDeniedError, TenantSuspendedError or TokenError when the request would be refused now."""
        if not self._access.is_operator(request):
            self._access.key_holder(request)

    async def _serve(
        self,
        request: web.Request,
        transport: AiohttpTransport,
        tenant: TenantId | None,
        key_id: str | None,
        config: LinkConfig,
    ) -> None:
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                hello = read_hello(await transport.receive())
        except (TimeoutError, ConnectionLostError, RemoteProtocolError) as error:
            logger.info("a link did not greet", extra={"tenant": tenant, "reason": str(error) or "too late"})
            await transport.close(1002, "expected HELLO")
            return
        found = await self._found(hello, tenant, key_id)
        try:
            # Its key may have been revoked since the request: `end_of_keys` finds only links that are there.
            self._check_still(request)
        except (AccessDeniedError, TenantSuspendedError, TokenError) as error:
            await _goodbye(transport, GoodbyeCode.ACCESS_REVOKED, str(error))
            return
        most = _OPERATOR_MAX if tenant is None else config.max_per_tenant
        if found is None and sum(other.tenant == tenant for other in self._links.values()) >= most:
            await _goodbye(transport, GoodbyeCode.LIMIT, f"there are {most} links of this tenant already")
            return
        each = found or self._new(tenant, key_id)
        if each.timer is not None:
            each.timer.cancel()
        each.transport, each.left = transport, asyncio.Event()
        del self._links[each.token]
        each.renew(None if found is None else hello.token)
        self._links[each.token] = each
        try:
            await each.link.run(transport, hello=hello, token=each.token, seconds=config.resume_seconds)
        finally:
            each.transport = None
            each.left.set()
            if each.link.end is not None:
                self._forget(each)
            elif self._joining.is_stopping:
                each.link.stop(GoodbyeCode.STOPPING)
                self._forget(each)
            else:
                each.timer = asyncio.get_running_loop().call_later(config.resume_seconds, self._lose, each)

    async def _found(self, hello: Hello, tenant: TenantId | None, key_id: str | None) -> HostLink | None:
        """The link that goes on, without the connection that it may still have."""
        each = next((each for each in self._links.values() if _may_go_on(each, hello)), None)
        if each is None or (each.tenant, each.key_id) != (tenant, key_id):
            return None
        if each.transport is not None:  # whose end was not noticed here yet
            each.transport.abort()
            try:
                async with asyncio.timeout(_HELLO_SECONDS):
                    await each.left.wait()
            except TimeoutError:
                return None
        return each if each.transport is None and _may_go_on(each, hello) else None

    def _new(self, tenant: TenantId | None, key_id: str | None) -> HostLink:
        def offered(channel: LinkChannel, meta: bytes) -> None:
            try:
                asked = parse_request(meta)
            except InvalidRequestError as error:
                channel.refuse(400, str(error))
                return
            if isinstance(asked, RoomRequest):
                self._tasks.spawn(self._participant(each, channel, asked), name="participant")
            elif each.hosts >= _MAX_HOSTS:
                channel.refuse(429, f"there are {_MAX_HOSTS} hosts on this link already")
            else:
                each.hosts += 1
                self._tasks.spawn(self._host(each, channel), name="host")

        each = HostLink(Link(dials=False, on_offer=offered, limits=LinkLimits()), tenant, key_id)
        self._links[each.token] = each
        logger.info("a host dialled in", extra={"tenant": tenant})
        return each

    def _lose(self, each: HostLink) -> None:
        logger.warning("a link did not come back in time", extra={"tenant": each.tenant})
        each.is_given_up = True
        each.link.stop()
        self._forget(each)

    def _forget(self, each: HostLink) -> None:
        if self._links.get(each.token) is each:
            del self._links[each.token]
        if each.timer is not None:
            each.timer.cancel()

    async def _host(self, each: HostLink, channel: LinkChannel) -> None:
        try:
            await self._channels.serve(channel, each.tenant)
        finally:
            each.hosts -= 1

    async def _participant(self, each: HostLink, channel: LinkChannel, asked: RoomRequest) -> None:
        try:
            if self._joining.is_stopping:
                channel.refuse(503, "the room server is stopping")
                return
            key, token = self._access.token_holder(asked.token, asked.room)
            if each.tenant not in (None, key.tenant):
                raise AccessDeniedError("link", "the token is of another tenant than the link")  # noqa: TRY301
            handshake = Handshake({RESUME_HEADER: asked.resume or NO_RESUME}, {})
            dialect = self._joining.dialect(handshake)
            async with self._joining.place(key, token, dialect.resume_token(handshake)):
                await self._join(each, channel, key, token, handshake)
        except ConnectionLostError:
            channel.abort()  # it gave up before it was in
        except MeshhostError as error:
            self._joining.metrics.count_join("refused")
            status = status_of(error)
            if status == INTERNAL_ERROR:
                logger.exception("participant of a link failed")
            channel.refuse(status, str(error) if status != INTERNAL_ERROR else "the room server failed")
        except Exception:  # as for a request by HTTP: of a store that fails, or a fault of ours
            logger.exception("participant of a link failed")
            channel.refuse(503, "the room server cannot do this now")
        finally:
            # For what was accepted and not closed in order; no effect otherwise.
            if not channel.is_over:
                channel.abort()

    async def _join(
        self, each: HostLink, channel: LinkChannel, key: RoomKey, token: ParticipantToken, handshake: Handshake
    ) -> None:
        dialect = self._joining.dialect(handshake)
        translator = dialect.translator(handshake)
        joining, resume_token = Participant.from_token(token), dialect.resume_token(handshake)
        received = self._joining.account(key.tenant)
        try:
            wakes = Capability.LOOK not in translator.capabilities
            async with self._joining.opening(key, wakes=wakes) as room:
                self._joining.check(room, joining, resume_token)
                channel.accept()
                participant = self._joining.join(room, joining, resume_token)
        except BaseException:
            received.close()
            raise
        await self._joining.stay(
            room,
            participant,
            channel,
            dialect=dialect,
            translator=translator,
            received=received,
            pulse=each,
            # The link had its time already.
            may_return=lambda: not each.is_given_up,
            slice_bytes=CLIENT_SLICE,
        )


async def _goodbye(transport: AiohttpTransport, code: int, text: str) -> None:
    with suppress(ConnectionLostError):
        await transport.send((pack(Kind.GOODBYE, 0, pack_reason(code, text)),))
    await transport.close()


def _may_go_on(each: HostLink, hello: Hello) -> bool:
    """Whether a link has not ended, and takes the token that is shown."""
    return each.link.end is None and hello.token is not None and each.takes(hello.token)
