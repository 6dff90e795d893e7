import pytest

from meshhost.api.helpers import is_valid_room_name, meshhost_base_url, websocket_room_url


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("MESHHOST_API_URL", raising=False)
    monkeypatch.delenv("MESHAGENT_API_URL", raising=False)


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
    assert not is_valid_room_name("A Room")
