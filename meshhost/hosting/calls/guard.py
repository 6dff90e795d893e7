"""Checks who sent a call: with a secret, calls must be signed; without one, only programs of this machine may call.

Without a secret a call that a proxy on this machine forwards, or that a web page makes, is refused as well, as far as it can be
told (`edge.same_machine`): such a proxy speaks for the whole world.

The signature covers the raw body and a timestamp. `CallGuard` remembers signatures far longer than they are fresh, so that it
knows a call that comes again even when the wall clock is set back: a proxy repeats a call whose answer was lost, an attacker
one that was recorded. `http.routes` answers both alike: as the first time where that changes nothing, else with 409. With a
ledger signatures are known after a restart too (`remember`).

`http.routes` asks the guard before it reads a body whether there is a signature, and whether it is right as far as that can be
told, and again with the body before it parses anything. The one exception is the tenant of `_tenant_of`, which only selects the
secret that must have signed the call. All in the event loop; no I/O.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import web

from meshhost.clock import Clock
from meshhost.edge.same_machine import is_local_program
from meshhost.edge.watched import know_sender
from meshhost.errors import CallRefusedError, InvalidTokenError, TokenError
from meshhost.hosting.calls.admission import MAX_TOKEN_LENGTH, parse_event
from meshhost.identity.tokens import ParticipantToken
from meshhost.identity.webhooks import SIGNATURE_HEADERS, check_signature, verify_webhook

__all__ = ["MAX_REMEMBERED", "CallGuard", "Signed"]

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 100_000
"""Signatures that are remembered: 10 minutes of them at 160 calls per second. Older ones are forgotten first."""

# Far more than a signature is fresh: one that is forgotten could be used again if the wall clock were set back by this time.
_REMEMBERED_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Signed:
    """What a call was signed with: the signature's id (None: calls need none), and whether it was seen before."""

    id: str | None = None
    is_repeated: bool = False


class CallGuard:
    """Checks that a call comes from the room server, and knows those that came before.

    `secrets` are by tenant; calls of other tenants must be signed with `secret` (None: programs of this machine make them).
    """

    def __init__(
        self,
        secret: str | None,
        *,
        clock: Clock,
        secrets: Mapping[str, str] | None = None,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._secret = secret
        self._secrets = dict(secrets or {})
        self._clock = clock
        self._max_remembered = max_remembered
        self._seen: dict[str, float] = {}

    def explain(self) -> None:
        """Log what is not checked. Called once, when the host starts."""
        if self._secret is None:
            logger.warning(
                "no webhook secret: calls are accepted from this machine only, which is enough at a desk; "
                "elsewhere set MESHHOST_WEBHOOK_SECRET"
            )

    def remember(self, signatures: Iterable[str]) -> None:
        """Know these signatures, oldest first, from an earlier life of the host."""
        now = self._clock.monotonic()
        self._seen = dict.fromkeys(signatures, now) | self._seen

    def forget(self, signed: Signed) -> None:
        """The call was refused and changed nothing: sent again, it is a new one."""
        if signed.id is not None and not signed.is_repeated:
            self._seen.pop(signed.id, None)

    def check_head(self, request: web.Request) -> None:
        """Refuse a call before its body is read, as far as that can be known. Raises CallRefusedError (401) as `check` does."""
        if self._secret is None and not self._secrets:
            _check_local(request)
            return
        if self._secret is None and is_local_program(request):
            return
        # Of several secrets, the tenant in the body says which one counts.
        secret = None if self._secrets else self._secret
        try:
            check_signature(_signature_in(request), secret=secret, now=self._clock.time())
        except InvalidTokenError as error:
            raise CallRefusedError(str(error), status=401) from None

    def check(self, request: web.Request, body: bytes) -> Signed:
        """Check a call and remember its signature.

        Raises CallRefusedError (401); its text says to the operator of the room server what to do.
        """
        secret = self._secret_of(body)
        if secret is None:
            _check_local(request)
            know_sender(request)
            return Signed()
        try:
            signature = verify_webhook(body, _signature_in(request), secret=secret, now=self._clock.time())
        except InvalidTokenError as error:
            raise CallRefusedError(str(error), status=401) from None
        know_sender(request)
        return Signed(signature, self._was_seen(signature))

    def _secret_of(self, body: bytes) -> str | None:
        tenant = _tenant_of(body) if self._secrets else None
        return self._secret if tenant is None else self._secrets.get(tenant, self._secret)

    def _was_seen(self, signature: str) -> bool:
        now = self._clock.monotonic()
        # The dictionary is in order of time: the oldest signatures come first.
        while self._seen and (
            len(self._seen) > self._max_remembered or next(iter(self._seen.values())) < now - _REMEMBERED_SECONDS
        ):
            del self._seen[next(iter(self._seen))]
        if signature in self._seen:
            return True
        self._seen[signature] = now
        return False


def _check_local(request: web.Request) -> None:
    if not is_local_program(request):
        raise CallRefusedError(
            "this host has no webhook secret and takes calls from programs of its machine only, without a proxy; "
            "set MESHHOST_WEBHOOK_SECRET on both sides",
            status=401,
        )


def _signature_in(request: web.Request) -> str | None:
    return next((request.headers[name] for name in SIGNATURE_HEADERS if name in request.headers), None)


def _tenant_of(body: bytes) -> str | None:
    """The tenant that the call claims, as `admit` will read it; None when it is not a call."""
    try:
        event = parse_event(body)
        token = event.data.get("token")
        if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH:
            return None
        return ParticipantToken.from_jwt(token, validate=False).project_id or "default"
    except (CallRefusedError, TokenError):
        return None
