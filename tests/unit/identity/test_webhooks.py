import hashlib
import json

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidTokenError
from meshhost.identity.webhooks import MAX_AGE_SECONDS, check_signature, sign_webhook, verify_webhook, webhook_body

SECRET = "webhook-secret-of-at-least-32-bytes!"
NOW = 1_700_000_000.0

texts = st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
datas = st.dictionaries(texts, values, max_size=4)


def verify(body, header, *, secret=SECRET, now=NOW):
    return verify_webhook(body, header, secret=secret, now=now)


def refused(body, header, **options):
    with pytest.raises(InvalidTokenError) as error:
        verify(body, header, **options)
    return str(error.value)


def bearer(claims, secret=SECRET, **options):
    return "Bearer " + jwt.encode(claims, secret, algorithm="HS256", **options)


def digest(body):
    return hashlib.sha256(body).hexdigest()


@given(texts, datas)
def test_what_is_signed_verifies_and_can_be_read(event, data):
    body = webhook_body(event, data)
    assert body.isascii()
    assert json.loads(body) == {"event": event, "data": data}
    assert verify(body, sign_webhook(body, secret=SECRET, now=NOW))


@given(datas)
def test_a_body_that_was_written_otherwise_verifies_by_its_reserialised_form(data):
    body = webhook_body("room.call", data)
    signature = sign_webhook(body, secret=SECRET, now=NOW)
    try:
        utf8 = json.dumps({"event": "room.call", "data": data}, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8
        return
    assert verify(utf8, signature)


@given(st.data(), datas)
def test_a_changed_body_does_not_verify(draw, data):
    body = webhook_body("room.call", data)
    signature = sign_webhook(body, secret=SECRET, now=NOW)
    position = draw.draw(st.integers(0, len(body) - 1))
    changed = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
    try:
        is_same = json.dumps(json.loads(changed)).encode() == body
    except ValueError:
        is_same = False
    if not is_same:
        assert "another body" in refused(changed, signature)


@given(st.text(alphabet=st.characters(blacklist_categories=()), max_size=40))
def test_no_header_verifies_by_accident(text):
    refused(b"{}", text)
    refused(b"{}", f"Bearer {text}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "bearer x", "Basic x"])
def test_a_call_without_a_signature_is_told_what_is_expected(header):
    assert "Meshhost-Signature: Bearer" in refused(b"{}", header)


def test_a_signature_of_another_secret_or_algorithm_is_wrong():
    body = b"{}"
    assert "wrong" in refused(body, sign_webhook(body, secret="o" * 32, now=NOW))
    assert "wrong" in refused(body, "Bearer " + jwt.encode({"sha256": digest(body)}, SECRET * 2, algorithm="HS512"))
    assert "wrong" in refused(body, "Bearer " + jwt.encode({"sha256": digest(body)}, None, algorithm="none"))


@pytest.mark.parametrize("claim", [None, 7, "", "\ud800", "ä" * 32, digest(b"{}").upper(), digest(b"other")])
def test_the_digest_must_be_the_bodys(claim):
    assert "another body" in refused(b"{}", bearer({"sha256": claim, "iat": NOW}))
    assert "another body" in refused(b"{}", bearer({"iat": NOW}))


@pytest.mark.parametrize("exp", ["soon", float("inf"), {}])
def test_a_claim_of_a_strange_kind_is_wrong(exp):
    assert "wrong" in refused(b"{}", bearer({"sha256": digest(b"{}"), "exp": exp}))


@pytest.mark.parametrize("age", [MAX_AGE_SECONDS + 1, -MAX_AGE_SECONDS - 1, 10**9])
def test_a_signature_that_is_too_old_or_too_new_is_refused(age):
    body = webhook_body("room.call", {})
    assert "old" in refused(body, sign_webhook(body, secret=SECRET, now=NOW - age))


@pytest.mark.parametrize("age", [MAX_AGE_SECONDS, 0, -MAX_AGE_SECONDS])
def test_clocks_may_differ_a_little(age):
    body = webhook_body("room.call", {})
    assert verify(body, sign_webhook(body, secret=SECRET, now=NOW - age))


def test_a_signature_that_does_not_say_when_it_was_made_is_good_and_has_an_id():
    body = webhook_body("room.call", {"a": 1})
    signature = bearer({"sha256": digest(body)})
    assert verify(body, signature) == verify(body, signature)
    assert verify(body, signature) == digest(signature.removeprefix("Bearer ").encode())


def test_each_signature_has_an_id_of_its_own():
    body = webhook_body("room.call", {})
    first, second = (sign_webhook(body, secret=SECRET, now=NOW) for _ in range(2))
    assert verify(body, first) == verify(body, first)
    assert verify(body, first) != verify(body, second)


def test_a_body_that_is_no_json_verifies_by_its_bytes():
    for body in (b"", b"\xff\xfe", b"[" * 100_000):
        assert verify(body, sign_webhook(body, secret=SECRET, now=NOW))


def test_a_signature_is_checked_before_the_body_has_come_but_for_what_it_signs():
    good = sign_webhook(b"body", secret=SECRET, now=NOW)
    check_signature(good, secret=SECRET, now=NOW)
    check_signature(good, secret=None, now=NOW)  # that there is one is all that can be said
    for header, secret, now in (
        (None, SECRET, NOW),
        (None, None, NOW),
        ("Basic x", None, NOW),
        (good, "another-secret-of-at-least-32-bytes!", NOW),
        (good, SECRET, NOW + MAX_AGE_SECONDS + 1),
    ):
        with pytest.raises(InvalidTokenError):
            check_signature(header, secret=secret, now=now)
