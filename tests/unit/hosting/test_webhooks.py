import pytest
from aiohttp.test_utils import make_mocked_request

from meshhost.errors import CallRefusedError
from meshhost.hosting import webhooks
from meshhost.hosting.webhooks import CallGuard
from meshhost.identity.webhooks import MAX_AGE_SECONDS, sign_webhook, webhook_body
from meshhost.testing.clock import FakeClock

SECRET = "webhook-secret-of-at-least-32-bytes!"
BODY = webhook_body("room.call", {"room_name": "rööm"})


@pytest.fixture
def clock():
    return FakeClock()


def request(remote="127.0.0.1", **headers):
    made = make_mocked_request(
        "POST", "/agent", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    return made.clone(remote=remote)


def refused(guard, call, body=BODY):
    with pytest.raises(CallRefusedError) as error:
        guard.check(call, body)
    assert (error.value.status, error.value.retry_after) == (401, None)
    return str(error.value)


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_without_a_secret_this_machine_may_call(remote, clock):
    CallGuard(None, clock=clock).check(request(remote), BODY)


@pytest.mark.parametrize("remote", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "localhost", "", "0.0.0.0"])
def test_without_a_secret_nobody_else_may(remote, clock):
    assert "machine only" in refused(CallGuard(None, clock=clock), request(remote))


def test_a_missing_secret_is_logged_once_at_the_start(clock, caplog):
    CallGuard(None, clock=clock).explain()
    CallGuard(SECRET, clock=clock).explain()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "MESHHOST_WEBHOOK_SECRET" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("header", ["Meshhost_Signature", "Meshagent_Signature"])
def test_a_good_signature_passes_from_anywhere(header, clock):
    signature = sign_webhook(BODY, secret=SECRET, now=clock.time())
    CallGuard(SECRET, clock=clock).check(request("10.0.0.1", **{header: signature}), BODY)


def test_the_digest_of_the_reserialised_body_passes_too(clock):
    compact = '{"event":"room.call","data":{"room_name":"rööm"}}'.encode()
    signature = sign_webhook(BODY, secret=SECRET, now=clock.time())
    CallGuard(SECRET, clock=clock).check(request(Meshagent_Signature=signature), compact)


def test_a_call_without_or_with_a_wrong_signature_is_refused_also_from_this_machine(clock):
    guard = CallGuard(SECRET, clock=clock)
    other = sign_webhook(BODY, secret="o" * 32, now=clock.time())
    assert "not signed" in refused(guard, request())
    assert "wrong" in refused(guard, request(Meshhost_Signature=other))
    assert "another body" in refused(
        guard, request(Meshhost_Signature=sign_webhook(b"{}", secret=SECRET, now=clock.time()))
    )


async def test_a_signature_counts_once_and_for_a_while(clock):
    guard = CallGuard(SECRET, clock=clock)
    signature = sign_webhook(BODY, secret=SECRET, now=clock.time())
    guard.check(request(Meshhost_Signature=signature), BODY)
    assert "made before" in refused(guard, request(Meshhost_Signature=signature))
    await clock.advance(MAX_AGE_SECONDS + 1)
    assert "old" in refused(guard, request(Meshhost_Signature=signature))


async def test_a_signature_from_the_future_is_remembered_until_it_is_stale(clock):
    guard = CallGuard(SECRET, clock=clock)
    signature = sign_webhook(BODY, secret=SECRET, now=clock.time() + MAX_AGE_SECONDS)
    guard.check(request(Meshhost_Signature=signature), BODY)
    await clock.advance(2 * MAX_AGE_SECONDS)
    guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    assert "made before" in refused(guard, request(Meshhost_Signature=signature))


async def test_old_signatures_are_forgotten(clock):
    guard = CallGuard(SECRET, clock=clock)
    for _ in range(3):
        guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    await clock.advance(2 * MAX_AGE_SECONDS + 1)
    guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    assert len(guard._seen) == 1


def test_no_more_signatures_are_remembered_than_there_is_room_for(clock, monkeypatch):
    monkeypatch.setattr(webhooks, "_MAX_REMEMBERED", 3)
    guard = CallGuard(SECRET, clock=clock)
    for _ in range(9):
        guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    assert len(guard._seen) <= 4
