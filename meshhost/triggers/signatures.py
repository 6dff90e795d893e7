"""How foreign services sign what they post to a hook: Standard Webhooks, GitHub, Stripe and Slack.

Pure: `verify` takes the headers and the bytes of a request as they came, and returns the service's own id of the delivery,
under which it is stored once. Digests are compared in constant time, and a time that was signed must be within
MAX_AGE_SECONDS of now: a queue remembers ids for longer than that, so a request that is replayed is either too old or known.
GitHub signs the body alone: there the id of the delivery is only as good as the connection that it came over.
"""

import base64
import binascii
import hashlib
import hmac
import json
import math
import secrets
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from meshhost.errors import InvalidRequestError, InvalidTokenError

__all__ = ["MAX_AGE_SECONDS", "Scheme", "check_secret", "new_secret", "sign", "verify"]

MAX_AGE_SECONDS: Final = 300.0
_STANDARD_PREFIX = "whsec_"
_LONGEST_SECRET = 1000
_LONGEST_ID = 200
# Signatures in one header; a service sends several while a secret is changed.
_MOST_SIGNATURES = 20


class Scheme(StrEnum):
    """Who signs, and how."""

    STANDARD = "standard-webhooks"
    GITHUB = "github"
    STRIPE = "stripe"
    SLACK = "slack"
    NONE = "none"


def new_secret(scheme: Scheme) -> str:
    """Return a secret for the schemes where the receiver chooses it. Raises InvalidRequestError for the others."""
    if scheme is Scheme.STANDARD:
        return _STANDARD_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    if scheme is Scheme.GITHUB:
        return secrets.token_hex(32)
    raise InvalidRequestError("secret", f"expected the signing secret that {scheme} shows")


def check_secret(scheme: Scheme, secret: str) -> str:
    """Return a secret that fits the scheme. Raises InvalidRequestError."""
    if not 8 <= len(secret) <= _LONGEST_SECRET or not secret.isascii() or not secret.isprintable():
        raise InvalidRequestError("secret", f"expected 8 to {_LONGEST_SECRET} printable ASCII characters")
    if scheme is Scheme.STANDARD:
        _standard_key(secret)
    return secret


def verify(scheme: Scheme, secret: str | None, headers: Mapping[str, str], body: bytes, *, now: float) -> str | None:
    """Return the id of a delivery, None when it has none. `headers` are looked up without regard to case.

    Raises InvalidTokenError, with a text fit for a caller that nobody knows.
    """
    if scheme is Scheme.NONE:
        return None
    if secret is None:
        raise InvalidTokenError("the hook has no secret yet")
    match scheme:
        case Scheme.STANDARD:
            return _verify_standard(secret, headers, body, now)
        case Scheme.GITHUB:
            given = headers.get("x-hub-signature-256", "")
            _check([given], f"sha256={_digest(secret.encode(), body).hex()}", "X-Hub-Signature-256")
            return _id(headers.get("x-github-delivery", ""))
        case Scheme.STRIPE:
            return _verify_stripe(secret, headers, body, now)
        case _:
            time = _fresh(headers.get("x-slack-request-timestamp", ""), now)
            expected = f"v0={_digest(secret.encode(), f'v0:{time}:'.encode() + body).hex()}"
            _check([headers.get("x-slack-signature", "")], expected, "X-Slack-Signature")
            return _id_in(body, "event_id", expected)


def sign(scheme: Scheme, secret: str | None, body: bytes, *, delivery: str, now: float) -> dict[str, str]:
    """Return the headers with which a service would send this body: for a test of a hook."""
    time = str(int(now))
    if scheme is Scheme.NONE or secret is None:
        return {}
    match scheme:
        case Scheme.STANDARD:
            digest = _digest(_standard_key(secret), f"{delivery}.{time}.".encode() + body)
            signature = f"v1,{base64.b64encode(digest).decode()}"
            return {"webhook-id": delivery, "webhook-timestamp": time, "webhook-signature": signature}
        case Scheme.GITHUB:
            signature = f"sha256={_digest(secret.encode(), body).hex()}"
            return {"x-hub-signature-256": signature, "x-github-delivery": delivery, "x-github-event": "ping"}
        case Scheme.STRIPE:
            digest = _digest(secret.encode(), f"{time}.".encode() + body)
            return {"stripe-signature": f"t={time},v1={digest.hex()}"}
        case _:
            digest = _digest(secret.encode(), f"v0:{time}:".encode() + body)
            return {"x-slack-request-timestamp": time, "x-slack-signature": f"v0={digest.hex()}"}


def _verify_standard(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    delivery = headers.get("webhook-id", "")
    if not delivery:
        raise InvalidTokenError("expected the header webhook-id")
    time = _fresh(headers.get("webhook-timestamp", ""), now)
    digest = _digest(_standard_key(secret), f"{delivery}.{time}.".encode(errors="surrogateescape") + body)
    given = headers.get("webhook-signature", "").split()
    _check(given, f"v1,{base64.b64encode(digest).decode()}", "webhook-signature")
    return _id(delivery)


def _verify_stripe(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    parts = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
    time = _fresh(next((value for name, _, value in parts if name == "t"), ""), now)
    expected = _digest(secret.encode(), f"{time}.".encode() + body).hex()
    _check([value for name, _, value in parts if name == "v1"], expected, "Stripe-Signature")
    return _id_in(body, "id", expected)


def _digest(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _standard_key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError("secret", "expected whsec_ followed by base64") from None


def _check(given: Iterable[str], expected: str, header: str) -> None:
    """Raise InvalidTokenError unless one of the signatures is the expected one; all of them are compared."""
    shown = [signature.encode(errors="replace") for signature in given][:_MOST_SIGNATURES]
    matches = [hmac.compare_digest(signature, expected.encode()) for signature in shown]
    if not any(matches):
        raise InvalidTokenError(f"the signature is wrong or missing: expected the header {header}")


def _fresh(time: str, now: float) -> str:
    """Return the time of a signature, which is in seconds. Raises InvalidTokenError unless it is about now."""
    if not (time.isascii() and time.isdecimal()) or len(time) > 15 or not math.isfinite(now):
        raise InvalidTokenError("expected the time at which it was signed, in seconds")
    if abs(now - int(time)) > MAX_AGE_SECONDS:
        raise InvalidTokenError(f"the signature is over {MAX_AGE_SECONDS:g} s old, or a clock is wrong")
    return time


def _id_in(body: bytes, name: str, signature: str) -> str | None:
    """The id that the body gives itself; else one made of its signature, which holds for the same body and second."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    found = value.get(name) if isinstance(value, dict) else None
    return _id(found) if isinstance(found, str) and found else signature


def _id(text: str) -> str | None:
    """An id of any length and characters as one that a store takes."""
    if not text:
        return None
    if len(text) <= _LONGEST_ID and text.isprintable():
        return text
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
