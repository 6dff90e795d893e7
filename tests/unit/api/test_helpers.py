import pytest

from meshhost.api import RoomClient, WebSocketClientProtocol, websocket_protocol
from meshhost.api.helpers import (
    is_valid_room_name,
    meshhost_base_url,
    participant_token,
    validate_schema_name,
    websocket_room_url,
)
from meshhost.api.participant_token import ApiScope, ParticipantToken
from meshhost.errors import InvalidRequestError, InvalidTokenError, SettingsError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("API_URL", "API_KEY", "SECRET", "TOKEN", "ROOM", "PROJECT_ID"):
        monkeypatch.delenv(f"MESHHOST_{name}", raising=False)
        monkeypatch.delenv(f"MESHAGENT_{name}", raising=False)


def test_a_rooms_address_is_at_this_machine_by_default():
    assert websocket_room_url(room_name="lobby") == "ws://127.0.0.1:8080/rooms/lobby"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h:1", "ws://h:1/rooms/a%20b"),
        ("https://h/", "wss://h/rooms/a%20b"),
        ("ws://h/x", "ws://h/x/rooms/a%20b"),
        ("wss://http.h", "wss://http.h/rooms/a%20b"),
    ],
)
def test_a_rooms_address_is_below_its_server(base, url, monkeypatch):
    assert websocket_room_url(room_name="a b", base_url=base) == url
    monkeypatch.setenv("MESHHOST_API_URL", base)
    assert websocket_room_url(room_name="a b") == url


def test_the_servers_address_is_the_argument_or_the_environments(monkeypatch):
    monkeypatch.setenv("MESHAGENT_API_URL", "https://rooms.example/")
    assert meshhost_base_url() == "https://rooms.example"
    assert meshhost_base_url("http://h:1/") == "http://h:1"


def test_names_of_rooms_are_checked():
    assert is_valid_room_name("a-room-1")
    assert is_valid_room_name("a_room_2")
    assert not is_valid_room_name("_room")
    assert not is_valid_room_name("A Room")


def test_a_connection_is_made_of_names_and_the_environment(monkeypatch):
    monkeypatch.setenv("MESHHOST_SECRET", "s" * 32)
    made = websocket_protocol(participant_name="clerk", room_name="office", role="agent")
    assert made.url == "ws://127.0.0.1:8080/rooms/office"
    token = ParticipantToken.from_jwt(made.token)
    assert (token.name, token.role, token.get_api_grant()) == ("clerk", "agent", ApiScope.agent_default())

    monkeypatch.setenv("MESHHOST_TOKEN", "a.b.c")
    assert websocket_protocol(participant_name="clerk", room_name="office").token == "a.b.c"


def test_without_a_secret_no_connection_is_made():
    with pytest.raises(InvalidTokenError, match="MESHHOST_API_KEY"):
        websocket_protocol(participant_name="clerk", room_name="office")


def test_a_participants_token_names_its_project(monkeypatch):
    monkeypatch.setenv("MESHHOST_PROJECT_ID", "acme")
    assert participant_token(participant_name="clerk", room_name="office").project_id == "acme"


def test_a_room_client_without_arguments_joins_the_room_of_the_environment(monkeypatch):
    with pytest.raises(SettingsError, match="MESHHOST_ROOM is not set"):
        RoomClient()
    monkeypatch.setenv("MESHHOST_ROOM", "office")
    with pytest.raises(SettingsError, match="MESHHOST_TOKEN is not set"):
        RoomClient()
    monkeypatch.setenv("MESHHOST_TOKEN", "a.b.c")
    protocol = RoomClient().protocol
    assert (protocol.url, protocol.token) == ("ws://127.0.0.1:8080/rooms/office", "a.b.c")


def test_a_room_client_takes_a_function_that_makes_its_connection():
    protocol = WebSocketClientProtocol(url="ws://h/rooms/a", token="a.b.c")
    assert RoomClient(protocol_factory=protocol.create_factory()).protocol is protocol


@pytest.mark.parametrize("name", ["", "a.b", "a/b"])
def test_the_name_of_a_schema_is_checked(name):
    with pytest.raises(InvalidRequestError, match="name"):
        validate_schema_name(name)
