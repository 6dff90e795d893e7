"""Who is asking."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from aiohttp import web

from meshhost.errors import (
    AccessDeniedError,
    ExpiredTokenError,
    InvalidApiKeyError,
    InvalidRequestError,
    InvalidTokenError,
    TokenError,
)
from meshhost.identity.keys import ApiKey, encode_api_key, new_api_key
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import NO_EXPIRATION, ParticipantGrant, ParticipantToken
from meshhost.server.core.participants import Participant
from meshhost.server.http.access import Access, bearer_of
from meshhost.stores.identity import KeyRights
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.memory.identity import MemoryIdentityStore
from meshhost.testing.clock import FakeClock

KEY = new_api_key("11111111-2222-3333-4444-555555555555")
FILE = RoomKey(TenantId(KEY.project_id), "r")


@pytest.fixture
async def access() -> AsyncIterator[Access]:
    async with opened_store() as store, IdentityService(store, extra_keys=lambda: [KEY]) as identity:
        yield Access(identity)


@asynccontextmanager
async def opened_store() -> AsyncIterator[MemoryIdentityStore]:
    store = MemoryIdentityStore()
    await store.open()
    yield store
    await store.close()


def _request(bearer: str | None = None, *, query: str = "", header: str | None = None) -> web.Request:
    value = f"Bearer {bearer}" if bearer is not None else header
    headers = {} if value is None else {"Authorization": value}
    route = SimpleNamespace(resource=SimpleNamespace(canonical="/accounts/projects"))
    request: Any = SimpleNamespace(
        method="GET",
        headers=headers,
        query=dict(parse_qsl(query.removeprefix("?"))),
        app={},
        match_info=SimpleNamespace(route=route),
    )
    return request  # type: ignore[no-any-return]


def _token(room: str | None = "r", *, key: ApiKey = KEY, seconds: float = 60) -> str:
    grants = [] if room is None else [ParticipantGrant(name="room", scope=room)]
    expiration = datetime.now(UTC) + timedelta(seconds=seconds)
    return ParticipantToken(name="me", grants=grants).to_jwt(api_key=encode_api_key(key), expiration=expiration)


def _participant(key: ApiKey = KEY, *, seconds: float = 60) -> Participant:
    return Participant.from_token(ParticipantToken.from_jwt(_token(key=key, seconds=seconds), validate=False))


@pytest.mark.parametrize("header", ["Bearer x", "bearer x", "BEARER  x "])
def test_the_bearer_is_what_follows_the_scheme(header: str) -> None:
    assert bearer_of(_request(header=header)) == "x"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic x", "x"])
def test_without_a_bearer_there_is_none(header: str | None) -> None:
    with pytest.raises(InvalidTokenError):
        bearer_of(_request(header=header))


async def test_a_participant_is_who_the_token_says(access: Access) -> None:
    for request in (_request(_token()), _request(query=f"?token={_token()}")):
        key, token = access.participant(request, "r")
        assert (key, token.name) == (RoomKey(TenantId(KEY.project_id), "r"), "me")


async def test_a_token_is_for_its_room_and_its_time(access: Access) -> None:
    for token, room, error in (
        (_token("other"), "r", AccessDeniedError),
        (_token(None), "r", AccessDeniedError),
        (_token("R"), "R", InvalidRequestError),
        (_token(seconds=-60), "r", ExpiredTokenError),
        (_token(key=new_api_key(KEY.project_id)), "r", InvalidTokenError),
        (_token(key=ApiKey(KEY.id, KEY.project_id, "x" * 64)), "r", InvalidTokenError),
        (_token(key=ApiKey(KEY.id, KEY.id, KEY.secret)), "r", InvalidTokenError),
        ("x", "r", InvalidTokenError),
    ):
        with pytest.raises(error):
            access.participant(_request(token), room)


async def test_a_token_without_an_end_is_refused_where_the_operator_says_so(access: Access) -> None:
    endless = ParticipantToken(name="me", grants=[ParticipantGrant(name="room", scope="r")])
    request = _request(endless.to_jwt(api_key=encode_api_key(KEY), expiration=NO_EXPIRATION))
    access.participant(request, "r")
    strict = Access(access.identity, requires_expiry=True)
    strict.participant(_request(_token()), "r")
    with pytest.raises(InvalidTokenError, match="exp"):
        strict.participant(request, "r")


async def test_a_token_signed_otherwise_is_refused(access: Access) -> None:
    claims = jwt.decode(_token(), options={"verify_signature": False})
    for forged in (jwt.encode(claims, key=None, algorithm="none"), jwt.encode(claims, KEY.secret, algorithm="HS384")):
        with pytest.raises(InvalidTokenError):
            access.participant(_request(forged), "r")


async def test_a_project_shows_its_key_or_a_login(access: Access) -> None:
    assert access.project(_request(encode_api_key(KEY))) == KEY.project_id
    assert access.project(_request(access.sign_login("p"))) == "p"
    assert access.key_for(KEY.project_id) == KEY
    with pytest.raises(InvalidTokenError):
        access.key_for("other")


@pytest.mark.parametrize(
    "bearer",
    [
        "x",
        "\udcff",
        encode_api_key(new_api_key(KEY.project_id)),
        encode_api_key(ApiKey(KEY.id, "99999999-2222-3333-4444-555555555555", KEY.secret)),
        encode_api_key(ApiKey(KEY.id, "99999999-2222-3333-4444-555555555555", "-" * 64)),
        encode_api_key(ApiKey(KEY.id, KEY.project_id, "\udcff")),
    ],
    ids=range(6),
)
async def test_anything_else_shows_no_project(access: Access, bearer: str) -> None:
    with pytest.raises(TokenError):
        access.project(_request(bearer))


async def test_a_malformed_key_is_refused(access: Access) -> None:
    with pytest.raises(InvalidApiKeyError):
        access.project(_request("ma-x"))


async def test_a_file_token_is_for_one_file_and_nothing_else(access: Access) -> None:
    token = access.sign_file(FILE, "a/b", _participant())
    assert access.read_file(token) == (FILE, "a/b")
    with pytest.raises(InvalidTokenError, match="not meant for this"):
        access.project(_request(token))
    with pytest.raises(InvalidTokenError, match="not meant for this"):
        access.read_file(access.sign_login("p"))


async def test_a_file_token_ends_with_the_key_and_the_token_of_who_asked(access: Access) -> None:
    made = await access.identity.create_key(KEY.project_id, name="k", description="")
    token = access.sign_file(FILE, "f", _participant(made))
    assert access.read_file(token) == (FILE, "f")
    await access.identity.delete_key(KEY.project_id, made.id)
    with pytest.raises(InvalidTokenError, match="revoked"):
        access.read_file(token)
    with pytest.raises(InvalidTokenError, match="expired"):
        access.read_file(access.sign_file(FILE, "f", _participant(seconds=-5)))


async def test_a_file_token_ends_when_the_key_of_who_asked_expires() -> None:
    clock = FakeClock()
    async with opened_store() as store, IdentityService(store, clock=clock) as identity:
        access, project = Access(identity), await identity.create_project("acme")
        rights = KeyRights(Role.DEVELOPER, clock.time() + 10)
        made = await identity.create_key(project.id, name="k", description="", rights=rights)
        token = access.sign_file(RoomKey(TenantId(project.id), "r"), "f", _participant(made))
        access.read_file(token)
        assert access.key_for(project.id, made.id) == made
        await clock.advance(11.0)
        with pytest.raises(ExpiredTokenError, match="API key has expired"):
            access.read_file(token)
        with pytest.raises(InvalidTokenError, match="revoked"):
            access.key_for(project.id, made.id)


async def test_a_key_signs_for_its_own_project_only(access: Access) -> None:
    other = await access.identity.create_project("other")
    made = await access.identity.create_key(other.id, name="k", description="")
    viewer = await access.identity.create_key(other.id, name="v", description="", rights=KeyRights(Role.VIEWER))
    assert access.key_for(other.id, made.id) == made
    for project, key_id in ((KEY.project_id, made.id), (other.id, KEY.id), (other.id, "none"), (other.id, viewer.id)):
        with pytest.raises(InvalidTokenError, match="revoked"):
            access.key_for(project, key_id)


async def test_what_another_process_or_time_signed_is_refused(access: Access) -> None:
    other = Access(access.identity)
    with pytest.raises(InvalidTokenError):
        access.read_file(other.sign_file(FILE, "f", _participant()))
    claims = {"kind": "file", "tenant": "t", "room": "r", "path": "f", "key": None, "exp": time.time() - 60}
    with pytest.raises(InvalidTokenError):
        access.read_file(jwt.encode(claims, access.own_secret))
    assert access.own_secret not in repr(access)
