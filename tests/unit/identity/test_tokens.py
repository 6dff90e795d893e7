"""Participant tokens: what we write, and what we refuse to read."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import ExpiredTokenError, InvalidApiKeyError, InvalidTokenError, TokenError
from meshhost.identity import tokens
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.identity.refused_tokens import RefusedTokens
from meshhost.identity.signing import AGENT_SCOPE, FULL_SCOPE, room_token
from meshhost.identity.tokens import (
    DEFAULT_LIFETIME,
    NO_EXPIRATION,
    ParticipantGrant,
    ParticipantToken,
    unverified_claims,
)

SECRET = "s" * 31 + "-hidden"
OTHER_SECRET = "o" * 64
KEY = ApiKey(
    id="66666666-7777-8888-9999-aaaaaaaaaaaa", project_id="11111111-2222-3333-4444-555555555555", secret=SECRET
)
API_KEY = encode_api_key(KEY)
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "SECRET"):
        monkeypatch.delenv(f"MESHHOST_{name}", raising=False)
        monkeypatch.delenv(f"MESHAGENT_{name}", raising=False)


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(claims: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key=secret, algorithm=algorithm)


def claims_of(text: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    return claims


def read(claims: dict[str, Any]) -> ParticipantToken:
    return ParticipantToken.from_jwt(signed({"name": "ada", "grants": []} | claims), token=SECRET)


# Writing


def test_a_token_carries_exactly_these_claims() -> None:
    token = ParticipantToken(name="ada", extra_payload={"team": 7})
    token.add_room_grant("lobby")
    token.add_role_grant("agent")
    token.add_api_grant(ApiScope(queues=QueuesGrant(send=["jobs"])))
    token.add_tunnel_grant([9000, 80])

    text = token.to_jwt(api_key=API_KEY, expiration=LATER)

    assert jwt.get_unverified_header(text) == {"alg": "HS256", "typ": "JWT"}
    claims = claims_of(text)
    assert claims.pop("iat") == pytest.approx(time.time(), abs=30)
    assert claims == {
        "name": "ada",
        "grants": [
            {"name": "room", "scope": "lobby"},
            {"name": "role", "scope": "agent"},
            {"name": "api", "scope": {"queues": {"send": ["jobs"]}}},
            {"name": "tunnel_ports", "scope": "9000,80"},
        ],
        "sub": KEY.project_id,
        "kid": KEY.id,
        "version": "0.6.13",
        "exp": int(LATER.timestamp()),
        "team": 7,
    }


def test_a_token_expires_after_a_day_unless_asked_otherwise() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    exp = datetime.fromtimestamp(claims_of(ParticipantToken(name="ada").to_jwt(token=SECRET))["exp"], UTC)

    assert before + DEFAULT_LIFETIME <= exp <= datetime.now(UTC) + DEFAULT_LIFETIME


def test_a_token_that_never_expires_must_be_asked_for() -> None:
    text = ParticipantToken(name="ada").to_jwt(token=SECRET, expiration=NO_EXPIRATION)

    assert "exp" not in claims_of(text)
    assert ParticipantToken.from_jwt(text, token=SECRET).expires_at is None


def test_a_token_survives_writing_and_reading() -> None:
    token = ParticipantToken(name="ada", project_id="p", api_key_id="k", extra_payload={"team": 7}, version="0.6.1")
    token.add_api_grant(ApiScope.agent_default())

    again = ParticipantToken.from_jwt(token.to_jwt(token=SECRET, expiration=LATER), token=SECRET)

    assert again.to_json() == token.to_json()
    assert again.expires_at == LATER


@pytest.mark.parametrize("claim", ["name", "grants", "sub", "kid", "version", "exp", "iat"])
def test_extra_claims_cannot_override_the_own_ones(claim: str) -> None:
    plain = claims_of(ParticipantToken(name="ada").to_jwt(token=SECRET, expiration=LATER))
    extra = ParticipantToken(name="ada", extra_payload={claim: "forged"})

    claims = claims_of(extra.to_jwt(token=SECRET, expiration=LATER))
    assert claims["iat"] == pytest.approx(plain["iat"], abs=30)
    assert claims | {"iat": 0} == plain | {"iat": 0}


# Which key signs


def test_the_api_key_argument_goes_before_the_secret_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_SECRET", OTHER_SECRET)
    text = ParticipantToken(name="ada", api_key_id="mine").to_jwt(api_key=API_KEY, token=OTHER_SECRET)

    assert ParticipantToken.from_jwt(text, token=SECRET).api_key_id == KEY.id


def test_the_api_key_of_the_environment_goes_before_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAGENT_API_KEY", API_KEY)
    text = ParticipantToken(name="ada").to_jwt(token=OTHER_SECRET)

    token = ParticipantToken.from_jwt(text)
    assert (token.api_key_id, token.project_id) == (KEY.id, KEY.project_id)


def test_a_secret_argument_leaves_the_stated_key_id() -> None:
    text = ParticipantToken(name="ada", project_id="p", api_key_id="k").to_jwt(token=SECRET)

    assert claims_of(text)["kid"] == "k"
    assert claims_of(text)["sub"] == "p"


def test_the_secret_of_the_environment_signs_without_a_key_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_SECRET", SECRET)
    text = ParticipantToken(name="ada", project_id="p", api_key_id="k").to_jwt()

    assert "kid" not in claims_of(text)
    assert ParticipantToken.from_jwt(text).project_id == "p"


def test_without_any_key_nothing_is_signed_or_read() -> None:
    with pytest.raises(InvalidTokenError, match="MESHHOST_API_KEY"):
        ParticipantToken(name="ada").to_jwt()
    with pytest.raises(InvalidTokenError, match="MESHHOST_API_KEY"):
        ParticipantToken.from_jwt(signed({"name": "ada"}))


def test_an_empty_secret_neither_signs_nor_checks() -> None:
    with pytest.raises(InvalidTokenError, match="empty"):
        ParticipantToken(name="ada").to_jwt(token="")
    with pytest.raises(InvalidTokenError, match="empty"):
        ParticipantToken.from_jwt(signed({"name": "ada"}), token="")


def test_a_malformed_api_key_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidApiKeyError) as caught:
        ParticipantToken(name="ada").to_jwt(api_key="ma-hidden")

    assert "hidden" not in str(caught.value)


# Reading


def test_a_token_without_expiry_is_accepted() -> None:
    token = read({})

    assert (token.name, token.expires_at) == ("ada", None)


def test_a_token_of_the_past_has_expired() -> None:
    text = ParticipantToken(name="ada").to_jwt(token=SECRET, expiration=datetime.now(UTC) - timedelta(seconds=1))

    with pytest.raises(ExpiredTokenError):
        ParticipantToken.from_jwt(text, token=SECRET)
    assert ParticipantToken.from_jwt(text, validate=False).name == "ada"


def test_a_token_of_another_key_is_refused_without_showing_either() -> None:
    text = signed({"name": "ada"}, secret=OTHER_SECRET)

    with pytest.raises(InvalidTokenError) as caught:
        ParticipantToken.from_jwt(text, token=SECRET)
    assert SECRET not in str(caught.value)
    assert text not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_with_a_changed_part_is_refused(part: int) -> None:
    parts = signed({"name": "ada", "grants": []}).split(".")
    parts[part] = signed({"name": "eve", "grants": [], "x": 1}, secret=OTHER_SECRET, algorithm="HS384").split(".")[part]

    with pytest.raises(InvalidTokenError):
        ParticipantToken.from_jwt(".".join(parts), token=SECRET)


@pytest.mark.parametrize("algorithm", ["none", "nOnE", "RS256", "HS512", "", None, 5])
def test_only_hs256_is_accepted(algorithm: Any) -> None:
    header, body = encoded({"alg": algorithm, "typ": "JWT"}), encoded({"name": "ada", "grants": []})

    for signature in ("", signed({"name": "ada", "grants": []}).split(".")[2]):
        with pytest.raises(InvalidTokenError):
            ParticipantToken.from_jwt(f"{header}.{body}.{signature}", token=SECRET)


def test_another_hmac_of_the_right_secret_is_refused() -> None:
    long_secret = SECRET * 3

    with pytest.raises(InvalidTokenError):
        ParticipantToken.from_jwt(signed({"name": "ada"}, secret=long_secret, algorithm="HS512"), token=long_secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c",
        "é.é.é",
        "\udcff.a.b",
        f"{encoded([])}.{encoded([])}.",
        f"{encoded({'alg': 'HS256'})}.{encoded(['name'])}.c",
        f"{encoded({'alg': 'HS256'})}.{encoded(b'[' * 100_000)}.c",
        f"{encoded(b'[' * 100_000)}.{encoded({})}.c",
        f"{encoded({'alg': 'HS256'})}.{encoded(b'9' * 10_000)}.c",
    ],
)
@pytest.mark.parametrize("validate", [True, False])
def test_what_is_not_a_token_is_refused(text: str, validate: bool) -> None:
    with pytest.raises(InvalidTokenError):
        ParticipantToken.from_jwt(text, token=SECRET, validate=validate)


@given(text=st.text(), validate=st.booleans())
def test_any_text_is_a_token_or_refused(text: str, validate: bool) -> None:
    with pytest.raises(InvalidTokenError):
        ParticipantToken.from_jwt(text, token=SECRET, validate=validate)


@pytest.mark.parametrize(
    "claims",
    [
        {"name": None},
        {"name": ""},
        {"name": 5},
        {"grants": None},
        {"grants": {}},
        {"grants": ["room"]},
        {"grants": [{}]},
        {"grants": [{"name": 5, "scope": "lobby"}]},
        {"grants": [{"name": "room", "scope": 5}]},
        {"grants": [{"name": "api", "scope": "all"}]},
        {"grants": [{"name": "api", "scope": {"queues": True}}]},
        {"sub": 5},
        {"kid": ["k"]},
        {"exp": "soon"},
        {"exp": []},
        {"exp": 1e300},
        {"exp": float("inf")},
    ],
)
@pytest.mark.parametrize("validate", [True, False])
def test_claims_of_a_wrong_kind_are_refused(claims: dict[str, Any], validate: bool) -> None:
    text = signed({"name": "ada", "grants": []} | claims)

    with pytest.raises(InvalidTokenError):
        ParticipantToken.from_jwt(text, token=SECRET, validate=validate)


@given(
    claims=st.dictionaries(
        st.sampled_from(["name", "grants", "sub", "kid", "version", "exp"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["name", "scope", "storage", "paths"]), inner, max_size=3),
            ),
            max_leaves=8,
        ),
    )
)
def test_any_claims_are_read_or_refused(claims: dict[str, Any]) -> None:
    try:
        token = ParticipantToken.from_json(claims)
    except InvalidTokenError:
        return
    token.to_json()
    token.get_api_grant()
    assert token.role


def test_a_verified_token_is_checked_with_the_secret_its_ids_name() -> None:
    asked: list[tuple[str | None, str | None]] = []

    def secret_for(kid: str | None, sub: str | None) -> str:
        asked.append((kid, sub))
        return SECRET

    token = ParticipantToken.verified(ParticipantToken(name="ada").to_jwt(api_key=API_KEY), secret_for=secret_for)

    assert token.name == "ada"
    assert asked == [(KEY.id, KEY.project_id)]


def test_a_verified_token_needs_the_right_secret_and_time() -> None:
    with pytest.raises(InvalidTokenError):
        ParticipantToken.verified(signed({"name": "ada"}), secret_for=lambda kid, sub: OTHER_SECRET)
    with pytest.raises(InvalidTokenError, match="empty"):
        ParticipantToken.verified(signed({"name": "ada"}), secret_for=lambda kid, sub: "")
    with pytest.raises(ExpiredTokenError):
        ParticipantToken.verified(signed({"name": "ada", "exp": 1}), secret_for=lambda kid, sub: SECRET)


def test_a_token_that_is_verified_is_read_by_the_jwt_library_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = jwt.decode

    def counted(text: str, **options: Any) -> Any:
        decoded.append(text)
        return decode(text, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    text = signed({"name": "ada", "kid": "k", "sub": "p"})
    ParticipantToken.verified(text, secret_for=lambda *_: SECRET)
    assert decoded == [text]


def test_a_token_with_a_wrong_signature_is_checked_once_and_refused_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text, refused = signed({"name": "ada", "kid": "k", "sub": "p"}), RefusedTokens()

    def verify(secret: str) -> ParticipantToken:
        return ParticipantToken.verified(text, secret_for=lambda *_: secret, refused=refused)

    texts = set()
    for _ in range(2):
        with pytest.raises(InvalidTokenError) as error:
            verify(OTHER_SECRET)
        texts.add(str(error.value))
        monkeypatch.setattr(jwt, "decode", None)  # it is not asked again
    assert len(texts) == 1
    monkeypatch.undo()
    assert verify(SECRET).name == "ada"  # another secret has the key now


def test_only_what_can_never_become_right_is_remembered_as_refused() -> None:
    claims, refused = {"name": "ada", "kid": "k", "sub": "p"}, RefusedTokens()
    expired, early = signed(claims | {"exp": 1}), signed(claims | {"nbf": 2**40})
    for text in (expired, early):
        with pytest.raises(TokenError):
            ParticipantToken.verified(text, secret_for=lambda *_: SECRET, refused=refused)
        assert (text, SECRET) not in refused


def test_claims_that_say_another_signer_than_the_one_asked_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "unverified_claims", lambda _: {"kid": "another"})
    with pytest.raises(InvalidTokenError):
        ParticipantToken.verified(signed({"name": "ada", "kid": "k"}), secret_for=lambda *_: SECRET)


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c.d", "a.\u00e9.c", f"a.{encoded([])}.c", f"a.{encoded(b'[' * 100_000)}.c"]
)
def test_unverified_claims_of_what_is_no_token_are_refused(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        unverified_claims(text)


def test_a_refusal_of_the_key_lookup_goes_through() -> None:
    def secret_for(kid: str | None, sub: str | None) -> str:
        raise InvalidApiKeyError("unknown key")

    with pytest.raises(TokenError, match="unknown key"):
        ParticipantToken.verified(signed({"name": "ada"}), secret_for=secret_for)


# Grants


def test_the_first_role_that_is_not_user_wins() -> None:
    token = ParticipantToken(name="ada")
    assert (token.role, token.is_user) == ("user", True)

    for role in ("user", "tool", "agent"):
        token.add_role_grant(role)
    assert (token.role, token.is_user) == ("tool", False)


def test_a_role_without_a_scope_is_no_role() -> None:
    assert ParticipantToken(name="ada", grants=[ParticipantGrant(name="role")]).role == "user"


def test_the_scope_of_a_grant_is_found_by_name() -> None:
    token = ParticipantToken(name="ada")
    token.add_room_grant("lobby")
    token.add_room_grant("attic")

    assert token.grant_scope("room") == "lobby"
    assert token.grant_scope("api") is None


def test_an_api_grant_without_a_scope_grants_nothing() -> None:
    grant = ParticipantGrant.from_json({"name": "api"})

    assert grant.scope == ApiScope()


def test_any_other_grant_may_lack_a_scope() -> None:
    assert ParticipantGrant.from_json({"name": "room"}).to_json() == {"name": "room", "scope": None}


@pytest.mark.parametrize("version", ["0.5.3", "0.5.99", "0.0", "0.5.0rc1", None, ""])
def test_a_legacy_token_has_everything_but_administration_and_secrets(version: str | None) -> None:
    assert read({} if version is None else {"version": version}).get_api_grant() == ApiScope.agent_default()


@pytest.mark.parametrize("version", ["0.6.0", "0.6", "0.6.13", "0.10.0", "1.0", "10.0.0", "0.60.1", "0.6.0+local"])
def test_versions_are_compared_as_numbers(version: str) -> None:
    assert read({"version": version}).get_api_grant() is None


@pytest.mark.parametrize("version", ["new", "0", "0.x", "0.²", "v0.5.3", f"0.{'0' * 5000}", "-1.0"])
def test_a_version_that_cannot_be_read_gets_no_default_scope(version: str) -> None:
    assert read({"version": version}).get_api_grant() is None


def test_a_stated_scope_goes_before_the_legacy_default() -> None:
    claims = {"version": "0.5.3", "grants": [{"name": "api", "scope": {"queues": {}}}]}

    assert read(claims).get_api_grant() == ApiScope(queues=QueuesGrant())


def test_the_scopes_that_are_signed_without_a_model_are_those_of_the_model() -> None:
    assert ApiScope.agent_default().to_json() == AGENT_SCOPE
    assert ApiScope.full().to_json() == FULL_SCOPE


def test_a_token_of_a_command_is_one_that_the_model_would_make() -> None:
    model = ParticipantToken(name="ada")
    model.add_room_grant("demo")
    model.add_role_grant("user")
    model.add_api_grant(ApiScope.full())

    text = room_token(API_KEY, "demo", name="ada", scope=FULL_SCOPE)

    made = ParticipantToken.from_jwt(text, token=KEY.secret)
    assert made.to_json() == ParticipantToken.from_jwt(model.to_jwt(api_key=API_KEY), token=KEY.secret).to_json()
    assert made.expires_at is not None
