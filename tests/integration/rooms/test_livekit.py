"""`livekit.connect`: who may join which voice session, and what the token opens."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from meshhost.errors import AccessDeniedError, InvalidRequestError, RoomError
from meshhost.identity.grants import ApiScope, LivekitGrant
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.room.services.livekit import LivekitConnectionInfo
from meshhost.server.config import LivekitConfig
from meshhost.settings import Settings
from meshhost.transport.websocket_client import WebSocketClientProtocol

URL, KEY, SECRET = "wss://voice.example.com", "APIkey", "a-secret-of-thirty-two-characters"
CONFIG = LivekitConfig(URL, KEY, SECRET)


def claims(info: LivekitConnectionInfo) -> dict[str, Any]:
    assert info.url == URL
    found: dict[str, Any] = jwt.decode(info.token, key=SECRET, algorithms=["HS256"], issuer=KEY)
    return found


async def test_a_participant_gets_a_token_that_joins_one_session(serve: Any) -> None:
    async with serve(livekit=CONFIG) as server, server.client(name="ada") as room:
        found = claims(await room.livekit.get_connection_info(breakout_room="b"))
        assert found["sub"] == room.local_participant.id
        assert found["name"] == "ada"
        assert found["exp"] - datetime.now(UTC).timestamp() == pytest.approx(3600, abs=30)
        session = found["video"].pop("room")
        assert found["video"] == {
            "roomJoin": True,
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
        }
        assert session.startswith("meshhost-")
        assert "b" not in session.removeprefix("meshhost-").strip("0123456789abcdef")
        assert "room" not in session


async def test_those_who_name_the_same_breakout_room_meet_and_nobody_else_does(serve: Any, other_key: ApiKey) -> None:
    async with serve(livekit=CONFIG) as server:

        async def session(client: RoomClient, breakout_room: str | None) -> str:
            async with client as room:
                found = claims(await room.livekit.get_connection_info(breakout_room=breakout_room))
                return str(found["video"]["room"])

        caller = await session(server.client(name="caller"), "b")
        assert await session(server.client(name="bot", role="agent"), "b") == caller
        assert await session(server.client(), "") == await session(server.client(), None)

        token = ParticipantToken(
            name="stranger",
            grants=[
                ParticipantGrant(name="room", scope="room"),
                ParticipantGrant(name="role", scope="user"),
                ParticipantGrant(name="api", scope=ApiScope.full()),
            ],
        ).to_jwt(api_key=encode_api_key(other_key))
        protocol = WebSocketClientProtocol(url=server.server.room_url("room"), token=token)
        others = [
            await session(RoomClient(protocol=protocol), "b"),
            await session(server.client(), "c"),
            await session(server.client(), None),
            await session(server.client(room="room-b"), None),
            await session(server.client(room="other"), "b"),
        ]
        assert len({caller, *others}) == 6


async def test_the_token_does_not_outlive_the_one_it_was_asked_with(serve: Any) -> None:
    end = datetime.now(UTC) + timedelta(seconds=60)
    async with serve(livekit=CONFIG) as server, server.client(expiration=end) as room:
        found = claims(await room.livekit.get_connection_info(breakout_room="b"))
        assert found["exp"] <= end.timestamp() + 1


async def test_a_grant_may_name_the_breakout_rooms(serve: Any) -> None:
    scope = ApiScope(livekit=LivekitGrant(breakout_rooms=["b"]))
    async with serve(livekit=CONFIG) as server, server.client(scope=scope) as room:
        claims(await room.livekit.get_connection_info(breakout_room="b"))
        for name in ("c", None):
            with pytest.raises(AccessDeniedError, match=r"livekit\.connect"):
                await room.livekit.get_connection_info(breakout_room=name)


async def test_a_breakout_room_with_an_endless_name_is_refused(serve: Any) -> None:
    async with serve(livekit=CONFIG) as server, server.client() as room:
        with pytest.raises(InvalidRequestError, match="breakout_room"):
            await room.livekit.get_connection_info(breakout_room="b" * 257)


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        (LivekitConfig(), "LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET"),
        (LivekitConfig(URL, KEY), "LIVEKIT_API_SECRET"),
    ],
)
async def test_a_server_without_livekit_says_what_its_operator_sets(
    serve: Any, config: LivekitConfig, missing: str
) -> None:
    async with serve(livekit=config) as server, server.client() as room:
        with pytest.raises(RoomError, match=rf"livekit\.connect: .* sets {missing} "):
            await room.livekit.get_connection_info(breakout_room="b")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("ws://h:7880", "ws://h:7880"),
        ("wss://h/", "wss://h"),
        ("http://h:7880", "ws://h:7880"),
        ("https://h", "wss://h"),
    ],
)
def test_the_address_is_what_clients_dial(given: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", given)
    assert Settings().livekit_url == url


def test_an_address_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", "h:7880")
    with pytest.raises(ValueError, match="LIVEKIT_URL"):
        Settings()
