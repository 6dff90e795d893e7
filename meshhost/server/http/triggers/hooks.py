"""Hooks: `POST /hooks/{id}` for foreign services, and the REST of those who own them at `/rooms/{room}/hooks`.

Nobody is known who posts to a hook: the id in the path and the signature are all there is. What is refused (an unknown id, a
wrong signature) counts against the address that it came from; one that was refused too often is told to wait, except at hooks
to which something was delivered rightly since this server started, whose service may come from the same address. Bodies are
bounded, and read only for hooks that are there.
"""

from collections import OrderedDict
from typing import Any

from aiohttp import web

from meshhost.clock import Clock, SystemClock
from meshhost.edge.watched import know_sender
from meshhost.errors import InvalidRequestError, InvalidTokenError, NotFoundError, QuotaExceededError
from meshhost.quotas.rates import Rates
from meshhost.quotas.token_bucket import TokenBucket
from meshhost.server.address import Address
from meshhost.server.http.access import Access
from meshhost.server.http.bodies import BodyReader, json_object, query_number
from meshhost.server.http.triggers.callers import RoomCaller, room_caller
from meshhost.triggers.hooks import Hook, Hooks, HookSpec

__all__ = ["HookRoutes", "RefusedAddresses"]

_MOST = 1000
_MOST_KNOWN = 10_000


class RefusedAddresses:
    """How often requests of each address were refused: `burst` at once, and one more every `seconds`."""

    def __init__(
        self, *, burst: int = 20, seconds: float = 5.0, most: int = 10_000, clock: Clock | None = None
    ) -> None:
        self._burst = burst
        self._seconds = seconds
        self._most = most
        self._clock = clock or SystemClock()
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds that this address has to wait; 0 when it need not."""
        bucket = self._buckets.get(address)
        return 0.0 if bucket is None else bucket.wait()

    def count(self, address: str) -> None:
        """A request of this address was refused. Of too many addresses the longest unseen is forgotten."""
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(1 / self._seconds, self._burst, clock=self._clock)
        self._buckets.move_to_end(address)
        bucket.take()
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)


class HookRoutes:
    """Serves hooks. `rates` count the deliveries of a tenant; `bodies` reads what is delivered."""

    def __init__(
        self,
        access: Access,
        hooks: Hooks,
        address: Address,
        bodies: BodyReader,
        *,
        rates: Rates | None = None,
        refused: RefusedAddresses | None = None,
    ) -> None:
        self._access = access
        self._hooks = hooks
        self._address = address
        self._bodies = bodies
        self._rates = rates
        self._refused = refused or RefusedAddresses()
        self._proven: OrderedDict[str, None] = OrderedDict()

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        path = "/rooms/{room}/hooks"
        app.add_routes(
            [
                web.post("/hooks/{id}", self._deliver),
                web.post(path, self._create),
                web.get(path, self._list),
                web.get(f"{path}/{{id}}", self._show),
                web.delete(f"{path}/{{id}}", self._delete),
                web.post(f"{path}/{{id}}/secret", self._change_secret),
                web.post(f"{path}/{{id}}/test", self._test),
            ]
        )

    async def _deliver(self, request: web.Request) -> web.Response:
        hook_id, sender = request.match_info["id"], request.remote or ""
        wait = self._refused.wait(sender)
        if wait > 0 and hook_id not in self._proven:
            raise _too_often(wait)
        try:
            hook = await self._hooks.receive(hook_id)
        except NotFoundError:
            self._refused.count(sender)
            raise
        if self._rates is not None:
            self._rates.take(hook.room.tenant)
        async with self._bodies.readable_body_of(request, hook.room.tenant) as body:
            try:
                accepted = await self._hooks.deliver(hook, request.headers, body)
            except InvalidTokenError as error:
                if wait > 0:  # who goes on is not worth another line for the owner
                    raise _too_often(wait) from None
                self._refused.count(sender)
                await self._hooks.log_refusal(hook, error, len(body))
                raise
        know_sender(request)
        self._proven[hook_id] = None
        if len(self._proven) > _MOST_KNOWN:
            self._proven.popitem(last=False)
        if accepted.challenge is not None:
            return web.Response(text=accepted.challenge)
        return web.json_response({"id": str(accepted.message_id)})

    async def _create(self, request: web.Request) -> web.Response:
        """The answer shows the secret, if there is one: it is never shown again."""
        caller, body = room_caller(self._access, request), await json_object(request)
        secret = _secret_in(body)
        spec = HookSpec.parse(body)
        caller.check_send(spec.queue)
        hook = await self._hooks.create(caller.room, spec, secret, maker=caller.maker)
        return web.json_response({**self._shown(hook), "secret": hook.secret})

    async def _list(self, request: web.Request) -> web.Response:
        caller = room_caller(self._access, request)
        limit = min(query_number(request, "limit", _MOST), _MOST)
        found = await self._hooks.list(
            caller.room.tenant, caller.room.name, after=request.query.get("after", ""), limit=limit
        )
        return web.json_response(
            {"hooks": [self._shown(each) for each in found if caller.may_manage(each.spec.queue, each.maker)]}
        )

    async def _show(self, request: web.Request) -> web.Response:
        _, hook = await self._found(request)
        return web.json_response({**self._shown(hook), "deliveries": [*await self._hooks.deliveries(hook)]})

    async def _delete(self, request: web.Request) -> web.Response:
        _, hook = await self._found(request)
        await self._hooks.delete(hook)
        self._proven.pop(hook.id, None)
        return web.Response(status=204)

    async def _change_secret(self, request: web.Request) -> web.Response:
        caller, hook = await self._found(request)
        changed = await self._hooks.change_secret(hook, _secret_in(await json_object(request)), maker=caller.maker)
        return web.json_response({**self._shown(changed), "secret": changed.secret})

    async def _test(self, request: web.Request) -> web.Response:
        _, hook = await self._found(request)
        accepted = await self._hooks.test(hook)
        return web.json_response({"id": str(accepted.message_id)})

    async def _found(self, request: web.Request) -> tuple[RoomCaller, Hook]:
        caller = room_caller(self._access, request)
        found = await self._hooks.get(caller.room.tenant, request.match_info["id"], room=caller.room.name)
        if not caller.may_manage(found.spec.queue, found.maker):
            raise NotFoundError("no such hook")
        return caller, found

    def _shown(self, hook: Hook) -> dict[str, Any]:
        return {**self._hooks.shown(hook), "url": f"{self._address.url}/hooks/{hook.id}"}


def _secret_in(body: dict[str, Any]) -> str | None:
    secret = body.pop("secret", None)
    if secret is not None and not isinstance(secret, str):
        raise InvalidRequestError("secret", "expected a text")
    return secret


def _too_often(wait: float) -> QuotaExceededError:
    return QuotaExceededError("refused too often: wait before the next try", quota="", retry_after=wait)
