"""Signatures of foreign services: the examples of their own documentation, made by hand otherwise, and what is refused."""

import base64
import hashlib
import hmac
import json

import pytest
from multidict import CIMultiDict

from meshhost.errors import InvalidRequestError, InvalidTokenError
from meshhost.triggers.signatures import MAX_AGE_SECONDS, Scheme, check_secret, new_secret, sign, verify

# The examples that the services publish: secret, time, body, and the headers that they send.
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121."
    b"803a0bc887a14d10d2c447fce8b6703c"
)
PUBLISHED = {
    Scheme.STANDARD: (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        1614265330.0,
        b'{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
    ),
    Scheme.GITHUB: (
        "It's a Secret to Everybody",
        0.0,
        b"Hello, World!",
        {
            "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        },
        "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    ),
    Scheme.SLACK: (
        "8f742231b10e8888abcd99yyyzzz85a5",
        1531420618.0,
        SLACK_BODY,
        {
            "X-Slack-Request-Timestamp": "1531420618",
            "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    ),
    Scheme.STRIPE: (  # no example is published; made as the documentation says
        "whsec_a-secret-of-stripe",
        1500000000.0,
        b'{"id": "evt_1", "object": "event"}',
        {
            "Stripe-Signature": "t=1500000000, v1="
            + hmac.new(
                b"whsec_a-secret-of-stripe", b'1500000000.{"id": "evt_1", "object": "event"}', hashlib.sha256
            ).hexdigest()
            + ",v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
        },
        "evt_1",
    ),
}
SIGNATURE = {
    Scheme.STANDARD: "webhook-signature",
    Scheme.GITHUB: "X-Hub-Signature-256",
    Scheme.SLACK: "X-Slack-Signature",
    Scheme.STRIPE: "Stripe-Signature",
}
TIMED = [scheme for scheme in PUBLISHED if scheme is not Scheme.GITHUB]


def checked(
    scheme: Scheme, headers: dict[str, str] | None = None, body: bytes | None = None, later: float = 0.0
) -> str | None:
    secret, now, published, sent, _ = PUBLISHED[scheme]
    shown = CIMultiDict(sent if headers is None else headers)
    return verify(scheme, secret, shown, published if body is None else body, now=now + later)


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_what_a_service_signed_is_accepted_and_has_its_id(scheme: Scheme) -> None:
    assert checked(scheme) == PUBLISHED[scheme][4]


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_another_body_secret_or_signature_is_refused(scheme: Scheme) -> None:
    secret, now, body, headers, _ = PUBLISHED[scheme]
    with pytest.raises(InvalidTokenError, match="signature is wrong or missing"):
        checked(scheme, body=body + b" ")
    with pytest.raises(InvalidTokenError, match="signature is wrong or missing"):
        verify(scheme, secret[:-4] + "AAAA", CIMultiDict(headers), body, now=now)
    with pytest.raises(InvalidTokenError):
        checked(scheme, {})
    name = SIGNATURE[scheme]
    for wrong in ("", "v1,", "sha256=", "ü", headers[name][:40], headers[name].replace("=", " ")):
        with pytest.raises(InvalidTokenError):
            checked(scheme, headers | {name: wrong})
    with pytest.raises(InvalidTokenError, match="no secret"):
        verify(scheme, None, CIMultiDict(headers), body, now=now)


@pytest.mark.parametrize("scheme", TIMED)
def test_what_was_signed_too_long_ago_or_in_the_future_is_refused(scheme: Scheme) -> None:
    checked(scheme, later=MAX_AGE_SECONDS)
    for later in (MAX_AGE_SECONDS + 1, -MAX_AGE_SECONDS - 1):
        with pytest.raises(InvalidTokenError, match="over 300 s old"):
            checked(scheme, later=later)


def test_a_time_that_is_none_is_refused() -> None:
    headers = PUBLISHED[Scheme.STANDARD][3]
    for time in ("", "now", "-5", "9" * 16, "²"):
        with pytest.raises(InvalidTokenError, match="expected the time"):
            checked(Scheme.STANDARD, headers | {"webhook-timestamp": time})
    with pytest.raises(InvalidTokenError, match="expected the header webhook-id"):
        checked(Scheme.STANDARD, headers | {"webhook-id": ""})


def test_one_of_several_signatures_is_enough_while_a_secret_is_changed() -> None:
    headers = PUBLISHED[Scheme.STANDARD][3]
    several = f"v1,AAAA v2,x {headers['webhook-signature']}"
    assert checked(Scheme.STANDARD, headers | {"webhook-signature": several}) is not None
    time, good, _ = PUBLISHED[Scheme.STRIPE][3]["Stripe-Signature"].split(",")
    assert checked(Scheme.STRIPE, {"stripe-signature": f"{time},v1=00,{good}"}) == "evt_1"
    many = " ".join(["v1,AAAA"] * 50) + f" {headers['webhook-signature']}"
    with pytest.raises(InvalidTokenError):
        checked(Scheme.STANDARD, headers | {"webhook-signature": many})


def test_a_delivery_has_an_id_that_a_store_takes() -> None:
    assert checked(Scheme.GITHUB, PUBLISHED[Scheme.GITHUB][3] | {"X-GitHub-Delivery": ""}) is None
    for strange in ("x" * 300, "a\nb"):
        found = checked(Scheme.GITHUB, PUBLISHED[Scheme.GITHUB][3] | {"X-GitHub-Delivery": strange})
        assert found == hashlib.sha256(strange.encode()).hexdigest()
    secret = PUBLISHED[Scheme.SLACK][0]
    body = json.dumps({"event_id": "Ev1"}).encode()
    base = b"v0:5:" + body
    headers = {
        "x-slack-request-timestamp": "5",
        "x-slack-signature": "v0=" + hmac.new(secret.encode(), base, hashlib.sha256).hexdigest(),
    }
    assert verify(Scheme.SLACK, secret, headers, body, now=5.0) == "Ev1"


@pytest.mark.parametrize("scheme", Scheme)
def test_a_test_is_signed_as_the_service_does(scheme: Scheme) -> None:
    secret = None if scheme is Scheme.NONE else PUBLISHED[scheme][0]
    body = b'{"id": "d", "event_id": "d"}'
    headers = sign(scheme, secret, body, delivery="d", now=77.7)
    assert verify(scheme, secret, headers, body, now=78.0) == (None if scheme is Scheme.NONE else "d")


def test_a_new_secret_is_one_of_the_scheme() -> None:
    standard = new_secret(Scheme.STANDARD)
    assert len(base64.b64decode(standard.removeprefix("whsec_"))) == 32
    assert check_secret(Scheme.STANDARD, standard) == standard
    assert check_secret(Scheme.GITHUB, new_secret(Scheme.GITHUB)) != new_secret(Scheme.GITHUB)
    for scheme in (Scheme.STRIPE, Scheme.SLACK):
        with pytest.raises(InvalidRequestError, match=f"secret: expected the signing secret that {scheme} shows"):
            new_secret(scheme)


@pytest.mark.parametrize(
    ("scheme", "secret"),
    [
        (Scheme.GITHUB, "short"),
        (Scheme.GITHUB, "x" * 1001),
        (Scheme.SLACK, "ü" * 20),
        (Scheme.STANDARD, "whsec_???????"),
    ],
)
def test_a_secret_that_cannot_be_is_refused(scheme: Scheme, secret: str) -> None:
    with pytest.raises(InvalidRequestError, match="secret: expected"):
        check_secret(scheme, secret)
