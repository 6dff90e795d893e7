"""Signed webhooks: `room.call` and the room events (room-protocol §18.2 and §18.3). No I/O.

The room server signs the calls it sends, the service host verifies them before it reads anything else. The body is signed
as the bytes that are sent. They are written the way Python writes JSON, so that a MeshAgent host, which hashes its own
re-serialisation, computes the same digest. A valid signature is accepted once: it has an id and a time, and the host
remembers ids for as long as a signature is fresh.
"""

import contextlib
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from typing import Any

import jwt

from meshhost.errors import InvalidTokenError

__all__ = [
    "CALL_HEADER",
    "EVENT_HEADERS",
    "MAX_AGE_SECONDS",
    "SIGNATURE_HEADERS",
    "check_signature",
    "sign_webhook",
    "verify_webhook",
    "webhook_body",
]

# On every webhook that a room server sends, so that what must not take one knows it, signed or not. Its value is the event.
CALL_HEADER = "Meshhost-Call"
# The event as JSON in a header, for calls that have no body (room-protocol §18.2).
EVENT_HEADERS = ("Meshhost-Webhook", "Meshagent-Webhook")

# Ours first; a MeshAgent sender knows the second only.
SIGNATURE_HEADERS = ("Meshhost-Signature", "Meshagent-Signature")
MAX_AGE_SECONDS = 300.0

_ALGORITHM = "HS256"


def webhook_body(event: str, data: Mapping[str, Any]) -> bytes:
    """Return the body of a webhook: `{"event", "data"}` as JSON in ASCII."""
    return json.dumps({"event": event, "data": dict(data)}).encode()


def sign_webhook(body: bytes, *, secret: str, now: float) -> str:
    """Return the value of the signature header for this body. `now` is the wall clock in seconds."""
    claims = {"sha256": hashlib.sha256(body).hexdigest(), "iat": int(now), "jti": uuid.uuid4().hex}
    return f"Bearer {jwt.encode(claims, key=secret, algorithm=_ALGORITHM)}"


def verify_webhook(body: bytes, header: str | None, *, secret: str, now: float) -> str:
    """Check a signature and return its id, which a receiver remembers for MAX_AGE_SECONDS to refuse replays.

    The digest may be that of the bytes or of their re-serialisation. A signature that says when it was made must be fresh;
    MeshAgent's do not say. Raises InvalidTokenError with a text fit for an unauthenticated caller.
    """
    claims, token = _signed_claims(header, secret, now)
    digest = claims.get("sha256")
    if not isinstance(digest, str) or not _is_one_of(digest, _digests(body)):
        raise InvalidTokenError("the call's signature is for another body")
    return str(claims.get("jti") or hashlib.sha256(token.encode()).hexdigest())


def check_signature(header: str | None, *, secret: str | None, now: float) -> None:
    """Check a signature as `verify_webhook` does, as far as that is possible before the body has come.

    Without a secret only whether there is one. Raises InvalidTokenError.
    """
    if secret is None:
        _token_in(header)
    else:
        _signed_claims(header, secret, now)


def _signed_claims(header: str | None, secret: str, now: float) -> tuple[dict[str, Any], str]:
    """The claims that were signed, and the token that has them."""
    token = _token_in(header)
    options: Any = {"verify_iat": False, "verify_aud": False, "verify_sub": False, "verify_jti": False}
    try:
        claims = jwt.decode(token, key=secret, algorithms=[_ALGORITHM], options=options)
    # What PyJWT lets through of the parsers below it, for tokens of strange text or depth.
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidTokenError("the call's signature is wrong") from None
    made_at = claims.get("iat")
    if isinstance(made_at, int | float) and abs(now - made_at) > MAX_AGE_SECONDS:
        raise InvalidTokenError(f"the call's signature is over {MAX_AGE_SECONDS:g} s old, or a clock is wrong")
    return claims, token


def _token_in(header: str | None) -> str:
    scheme, _, token = (header or "").partition(" ")
    if scheme != "Bearer" or not token:
        raise InvalidTokenError("the call is not signed: expected the header Meshhost-Signature: Bearer <JWT>")
    return token


def _is_one_of(digest: str, own: list[bytes]) -> bool:
    encoded = digest.encode(errors="replace")
    return any(hmac.compare_digest(encoded, one) for one in own)


def _digests(body: bytes) -> list[bytes]:
    bodies = [body]
    with contextlib.suppress(ValueError, RecursionError):  # not JSON: then only the bytes can have been signed
        bodies.append(json.dumps(json.loads(body)).encode())
    return [hashlib.sha256(one).hexdigest().encode() for one in bodies]
