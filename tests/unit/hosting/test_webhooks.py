import pytest
from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls import guard as guard_module
from meshhost.hosting.calls.guard import CallGuard
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.identity.webhooks import MAX_AGE_SECONDS, sign_webhook, webhook_body
from meshhost.testing.clock import FakeClock

SECRET = "webhook-secret-of-at-least-32-bytes!"
BODY = webhook_body("room.call", {"room_name": "rööm"})


@pytest.fixture
def clock():
    return FakeClock()


def request(remote="127.0.0.1", version=HttpVersion11, **headers):
    sent = {"Host": "127.0.0.1:8081"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("POST", "/agent", headers=sent, version=version).clone(remote=remote)


def refused(guard, call, body=BODY):
    with pytest.raises(CallRefusedError) as error:
        guard.check(call, body)
    assert (error.value.status, error.value.retry_after) == (401, None)
    return str(error.value)


@pytest.mark.parametrize("remote", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_without_a_secret_this_machine_may_call(remote, clock):
    CallGuard(None, clock=clock).check(request(remote), BODY)


@pytest.mark.parametrize("remote", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "", "0.0.0.0"])
def test_without_a_secret_nobody_else_may(remote, clock):
    assert "MESHHOST_WEBHOOK_SECRET" in refused(CallGuard(None, clock=clock), request(remote))


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": "127.0.0.1"},
        {"X_Forwarded_Proto": "https"},
        {"X_Forwarded_Port": "443"},
        {"x_forwarded_server": "a"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X_Real_IP": "10.0.0.1"},
        # A proxy that passes the name on that it was asked for, and a page in a browser of this machine.
        {"Host": "hosts.example"},
        {"Host": "hosts.example:8081"},
        {"Origin": "https://evil.example"},
        # nginx speaks 1.0 unless it is told otherwise, and then adds no header at all.
        {"version": HttpVersion10},
    ],
)
def test_without_a_secret_what_a_proxy_or_a_page_passes_on_is_refused(headers, clock):
    assert "MESHHOST_WEBHOOK_SECRET" in refused(CallGuard(None, clock=clock), request(**headers))


def test_with_a_secret_a_proxy_may_pass_calls_on(clock):
    signature = sign_webhook(BODY, secret=SECRET, now=clock.time())
    call = request(
        Meshhost_Signature=signature, X_Forwarded_For="10.0.0.1", Host="hosts.example", version=HttpVersion10
    )
    CallGuard(SECRET, clock=clock).check(call, BODY)


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
    assert not guard.check(request(Meshhost_Signature=signature), BODY).is_repeated
    assert guard.check(request(Meshhost_Signature=signature), BODY).is_repeated
    await clock.advance(MAX_AGE_SECONDS + 1)
    assert "old" in refused(guard, request(Meshhost_Signature=signature))


async def test_a_signature_from_the_future_is_remembered_until_it_is_stale(clock):
    guard = CallGuard(SECRET, clock=clock)
    signature = sign_webhook(BODY, secret=SECRET, now=clock.time() + MAX_AGE_SECONDS)
    guard.check(request(Meshhost_Signature=signature), BODY)
    await clock.advance(2 * MAX_AGE_SECONDS)
    guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    assert guard.check(request(Meshhost_Signature=signature), BODY).is_repeated


async def test_a_clock_that_is_set_back_makes_no_old_call_a_new_one(clock):
    guard = CallGuard(SECRET, clock=clock)
    recorded = sign_webhook(BODY, secret=SECRET, now=clock.time())
    guard.check(request(Meshhost_Signature=recorded), BODY)
    await clock.advance(5 * MAX_AGE_SECONDS)
    clock.step(-5 * MAX_AGE_SECONDS)
    assert guard.check(request(Meshhost_Signature=recorded), BODY).is_repeated
    fresh = sign_webhook(BODY, secret=SECRET, now=clock.time())
    assert not guard.check(request(Meshhost_Signature=fresh), BODY).is_repeated


def test_a_call_that_was_refused_counts_as_new_when_it_comes_again(clock):
    guard = CallGuard(SECRET, clock=clock)
    signature = request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time()))
    guard.forget(guard.check(signature, BODY))
    assert not guard.check(signature, BODY).is_repeated
    guard.forget(guard.check(signature, BODY))  # a repetition: the call itself was answered
    assert guard.check(signature, BODY).is_repeated


async def test_old_signatures_are_forgotten(clock):
    guard = CallGuard(SECRET, clock=clock)
    for _ in range(3):
        guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    await clock.advance(24 * 3600 + 1)
    guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    assert len(guard._seen) == 1


def test_no_more_signatures_are_remembered_than_there_is_room_for(clock):
    guard = CallGuard(SECRET, clock=clock, max_remembered=3)
    for _ in range(9):
        guard.check(request(Meshhost_Signature=sign_webhook(BODY, secret=SECRET, now=clock.time())), BODY)
    assert len(guard._seen) <= 4


# Secrets of tenants


def call_of(tenant):
    token = ParticipantToken(name="agent", project_id=tenant, grants=[ParticipantGrant(name="room", scope="room")])
    return webhook_body(
        "room.call", {"room_name": "room", "token": token.to_jwt(token="any-secret-of-32-bytes-or-more!!!")}
    )


def signed(body, secret, clock):
    return request(Meshhost_Signature=sign_webhook(body, secret=secret, now=clock.time()))


def test_a_tenant_with_a_secret_of_its_own_is_checked_by_that_only(clock):
    own = "own-secret-of-the-tenant-of-32-bytes!"
    guard = CallGuard(SECRET, clock=clock, secrets={"acme": own})
    # Made once: a token says in which second it was made, so a second one may be another body.
    acme, other = call_of("acme"), call_of("other")
    guard.check(signed(acme, own, clock), acme)
    guard.check(signed(other, SECRET, clock), other)
    assert "wrong" in refused(guard, signed(acme, SECRET, clock), acme)
    assert "wrong" in refused(guard, signed(other, own, clock), other)


@pytest.mark.parametrize("body", [b"nonsense", BODY, webhook_body("room.call", {"token": "no token"})])
def test_what_is_no_call_of_a_tenant_is_checked_by_the_default(body, clock):
    guard = CallGuard(SECRET, clock=clock, secrets={"acme": "own-secret-of-the-tenant-of-32-bytes!"})
    guard.check(signed(body, SECRET, clock), body)


def test_without_a_default_the_other_tenants_call_from_this_machine_only(clock):
    guard = CallGuard(None, clock=clock, secrets={"acme": "own-secret-of-the-tenant-of-32-bytes!"})
    guard.check(request(), call_of("other"))
    assert "not signed" in refused(guard, request(), call_of("acme"))


@pytest.mark.parametrize("secrets", [{}, {"tenant": SECRET}])
def test_who_sends_an_unsigned_call_is_looked_up_once(secrets, clock, monkeypatch):
    asked = []

    def looked_up(call):
        asked.append(call)
        return True

    monkeypatch.setattr(guard_module, "is_local_program", looked_up)
    CallGuard(None, secrets=secrets, clock=clock).check_head(request())
    assert len(asked) == 1
