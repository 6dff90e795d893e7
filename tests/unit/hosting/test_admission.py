import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.admission import MAX_TOKEN_LENGTH, AllowedRooms, admit, parse_event
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.identity.tokens import NO_EXPIRATION, ParticipantGrant, ParticipantToken
from meshhost.tenant_names import name_of

PROJECT = "11111111-2222-3333-4444-555555555555"
KEY = encode_api_key(new_api_key(PROJECT))
SERVER = "http://127.0.0.1:8080"


def token(room="room", *, expiration=None, name="worker", api_key=KEY, secret=None):
    grants = [ParticipantGrant(name="role", scope="agent")]
    if room is not None:
        grants.append(ParticipantGrant(name="room", scope=room))
    made = ParticipantToken(name=name, grants=grants)
    return made.to_jwt(api_key=api_key, token=secret, expiration=expiration)


def data(room="room", **changes):
    given = {
        "room_name": room,
        "room_url": f"ws://127.0.0.1:8080/rooms/{room}",
        "token": token(room),
        "arguments": {},
    } | changes
    return {name: value for name, value in given.items() if value is not ...}


def admitted(base=SERVER, **changes):
    return admit(data(**changes), AllowedRooms([base]))


def refusal(status, base=SERVER, **changes):
    with pytest.raises(CallRefusedError) as refused:
        admitted(base, **changes)
    assert (refused.value.status, refused.value.retry_after) == (status, None)
    return str(refused.value)


def test_a_good_call_is_admitted_with_what_its_token_says():
    before = int(time.time())
    call = admitted(arguments={"a": 1}, extra="ignored")
    assert (call.tenant, call.room_name, call.identity) == (PROJECT, "room", "worker")
    assert call.room_url == "ws://127.0.0.1:8080/rooms/room"
    assert call.arguments == {"a": 1}
    assert before + 24 * 3600 <= call.expires_at <= before + 24 * 3600 + 60
    assert call.token not in repr(call)


def test_a_call_says_the_name_of_its_tenant():
    admitted(tenant_name="acme")
    assert name_of(PROJECT) == "acme"
    refusal(403, tenant_name="rival", token=token("elsewhere"))
    assert name_of(PROJECT) == "acme"


def test_a_token_of_no_project_belongs_to_the_default_tenant_and_may_live_for_ever(monkeypatch):
    monkeypatch.delenv("MESHHOST_API_KEY", raising=False)
    plain = token(api_key=None, secret="s" * 32, expiration=NO_EXPIRATION)
    call = admitted(token=plain)
    assert (call.tenant, call.expires_at) == ("default", None)


@pytest.mark.parametrize("field", ["room_name", "room_url", "token"])
@pytest.mark.parametrize("value", [..., None, "", 7, ["x"], "\ud800"])
def test_each_malformed_member_is_named(field, value):
    assert refusal(400, **{field: value}).startswith(f"data.{field}: ")


@pytest.mark.parametrize("field", ["room_name", "room_url"])
def test_members_have_a_greatest_length(field):
    assert refusal(400, **{field: "x" * 3000}).startswith(f"data.{field}: ")


@pytest.mark.parametrize(
    ("arguments", "read"),
    [(..., {}), (None, {}), ("", {}), ({"a": [1]}, {"a": [1]}), ('{"a": "ü"}', {"a": "ü"}), ("{}", {})],
)
def test_arguments_may_be_absent_an_object_or_the_json_of_one(arguments, read):
    assert admitted(arguments=arguments).arguments == read


@pytest.mark.parametrize("arguments", [1, [], True, "[]", "null", "not json", "{", "[" * 100_000])
def test_other_arguments_are_malformed(arguments):
    assert refusal(400, arguments=arguments).startswith("data.arguments: Value error, expected an object")


@pytest.mark.parametrize(
    ("base", "room_url"),
    [
        ("http://127.0.0.1:8080", "ws://localhost:8080/rooms/room"),
        ("http://localhost:8080", "ws://127.0.0.1:8080/rooms/room"),
        ("http://localhost:8080", "ws://[::1]:8080/rooms/room"),
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080/rooms/room"),
        ("http://127.0.0.1:8080", "WS://127.0.0.1:8080/rooms/room/"),
        ("http://rooms.example", "ws://Rooms.Example:80/rooms/room"),
        ("https://rooms.example:443/base", "wss://rooms.example/base/rooms/room?x=1#y"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/rooms/r%6Fom"),
    ],
)
def test_the_same_server_may_be_written_in_several_ways(base, room_url):
    assert admitted(base, room_url=room_url).room_url == room_url


@pytest.mark.parametrize(
    "room_url",
    [
        "ws://evil.example/rooms/room",
        "ws://127.0.0.1:8081/rooms/room",
        "ws://127.0.0.1/rooms/room",
        "wss://127.0.0.1:8080/rooms/room",
        "ws://127.0.0.1:8080@evil.example/rooms/room",
        "ws://user@127.0.0.1:8080/rooms/room",
        "ws://:secret@127.0.0.1:8080/rooms/room",
        "ws://@127.0.0.1:8080/rooms/room",
        "ws://evil.example\\@127.0.0.1:8080/rooms/room",
        "ws://127.0.0.1.evil.example:8080/rooms/room",
        "ws://127.0.0.1%2eevil.example:8080/rooms/room",
        "ws://127.1:8080/rooms/room",
        "ws://2130706433:8080/rooms/room",
        "ws://localhost.:8080/rooms/room",
        "ws://[::ffff:127.0.0.1]:8080/rooms/room",
        "ws://127.0.0.1:99999/rooms/room",
        "ws://127.0.0.1:port/rooms/room",
        "ws://[::1/rooms/room",
        "ws://[evil]/rooms/room",
        "ftp://127.0.0.1:8080/rooms/room",
        "file:///rooms/room",
        "//127.0.0.1:8080/rooms/room",
        "127.0.0.1:8080/rooms/room",
        "ws:///rooms/room",
        "room",
    ],
)
def test_the_address_of_another_server_is_refused(room_url):
    text = refusal(403, room_url=room_url)
    assert text.startswith("data.room_url: ")
    assert "evil" not in text


@given(st.text(max_size=60))
def test_no_text_is_an_address_by_accident(text):
    allowed = AllowedRooms([SERVER, text])
    assert allowed.allow(f"{SERVER}/rooms/a")
    assert not AllowedRooms([SERVER]).allow(text) or text.lower().lstrip().startswith(("ws:", "http:"))


def test_what_is_no_address_allows_nothing_and_what_is_allowed_can_be_seen():
    assert not AllowedRooms(["", "nonsense", "http://[::1"]).allow("nonsense")
    assert repr(AllowedRooms([SERVER, "http://[::1"])) == "<AllowedRooms [('ws', 'localhost', 8080)]>"


@pytest.mark.parametrize(
    "changes",
    [
        {"token": token("other")},
        {"token": token(None)},
        {"room_url": "ws://127.0.0.1:8080/rooms/other"},
        {"room_url": "ws://127.0.0.1:8080/rooms/room/other"},
        {"room_url": "ws://127.0.0.1:8080/rooms/rooms%2Froom"},
        {"room_url": "ws://127.0.0.1:8080/"},
        {"room_name": "other"},
    ],
)
def test_name_address_and_token_must_mean_the_same_room(changes):
    assert refusal(403, **changes) == "data.token: the token is for another room"


def test_an_expired_token_is_refused():
    old = token(expiration=datetime.now(UTC) - timedelta(seconds=1))
    assert refusal(403, token=old) == "data.token: the token has expired"


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "a.b.c",
        token().partition(".")[0] + ".e30.e30",
        jwt.encode({"name": ""}, "k" * 32),
        jwt.encode({"name": "x", "grants": "all"}, "k" * 32),
        jwt.encode({"name": "x", "grants": [], "exp": 10**20}, "k" * 32),
    ],
)
def test_what_is_no_participant_token_is_refused_and_not_shown(text):
    assert refusal(403, token=text) == "data.token: not a participant token"


def test_an_event_is_read():
    event = parse_event(json.dumps({"event": "room.started", "data": {"room_name": "r"}, "more": 1}).encode())
    assert (event.event, event.data) == ("room.started", {"room_name": "r"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"\xff", "body"),
        (b"null", "body"),
        (b"[]", "body"),
        (b"[" * 100_000, "body"),
        (b"{}", "event"),
        (b'{"event": 1, "data": {}}', "event"),
        (b'{"event": "x"}', "data"),
        (b'{"event": "x", "data": []}', "data"),
    ],
)
def test_a_malformed_event_names_its_member(body, field):
    with pytest.raises(CallRefusedError) as refused:
        parse_event(body)
    assert refused.value.status == 400
    assert str(refused.value).startswith(f"{field}: ")


def test_data_that_is_no_object_is_malformed():
    with pytest.raises(CallRefusedError, match=r"data\.room_name: Field required") as refused:
        admit({}, AllowedRooms([SERVER]))
    assert refused.value.status == 400


@pytest.mark.parametrize("query", ["token=x", "a=1&token=", "%74oken=x"])
def test_a_room_url_with_a_token_of_its_own_is_refused(query):
    assert "room_url" in refusal(403, room_url=f"ws://127.0.0.1:8080/rooms/room?{query}")
    assert admitted(room_url="ws://127.0.0.1:8080/rooms/room?a=token")


def test_a_token_that_no_request_can_carry_is_refused():
    assert "token" in refusal(400, token="x" * (MAX_TOKEN_LENGTH + 1))
