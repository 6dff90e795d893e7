"""Tokens, scopes and packets are the same on our side and in the MeshAgent SDK 0.6.13."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from meshhost.identity.grants import ApiScope, QueuesGrant, StorageGrant, StoragePathGrant
from meshhost.identity.keys import ApiKey, encode_api_key, parse_api_key
from meshhost.identity.tokens import NO_EXPIRATION, ParticipantToken
from meshhost.protocol.connection import MessageReceived, ReplyReceived, RoomConnection
from meshhost.protocol.frames import SERVER_SLICE
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    Response,
    TextResponse,
    wire_safe,
)

# Making the SDK's environment takes a while, once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

KEY = ApiKey(
    id="66666666-7777-8888-9999-aaaaaaaaaaaa",
    project_id="11111111-2222-3333-4444-555555555555",
    secret="a-secret-with-dashes-of-more-than-32-bytes",
)
SCOPE = ApiScope(
    queues=QueuesGrant(send=["jobs"], list=False),
    storage=StorageGrant(paths=[StoragePathGrant(path="data", read_only=True)]),
)
BODIES: list[Response] = [
    JsonResponse(json={"a": [1, None, "é"]}),
    TextResponse(text="hello", usage={"tokens": 3}),
    FileResponse(data=bytes(range(256)) * 20, name="x.bin", mime_type="application/octet-stream"),
    LinkResponse(name="x", url="https://example.org/x"),
    EmptyResponse(),
    wire_safe(RawOutputs(outputs=[{"a": 1}])),
    ErrorResponse(text="no", code=1001),
]

Program = Callable[[str, Any], Any]


@pytest.fixture
def sdk(sdk_python: Path) -> Program:
    """Run a program in the SDK's Python: `given` is its input, what it assigns to `result` comes back, both as JSON."""

    def run(program: str, given: Any = None) -> Any:
        source = f"import json, sys\ngiven = json.load(sys.stdin)\n{program}\nprint('\\n' + json.dumps(result))"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MESHAGENT_")}
        done = subprocess.run(
            [sdk_python, "-c", source],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "SECRET"):
        monkeypatch.delenv(f"MESHHOST_{name}", raising=False)
        monkeypatch.delenv(f"MESHAGENT_{name}", raising=False)


def test_a_token_of_the_sdk_is_read_here(sdk: Program) -> None:
    text = sdk(
        """
from meshagent.api.participant_token import ApiScope, ParticipantToken
token = ParticipantToken(name="ada", extra_payload={"team": 7})
token.add_room_grant("lobby")
token.add_role_grant("agent")
token.add_tunnel_grant(["9000", "80"])  # it joins texts, whatever its annotation says
token.add_api_grant(ApiScope.model_validate(given["scope"]))
result = token.to_jwt(api_key=given["key"])
""",
        {"key": encode_api_key(KEY), "scope": SCOPE.to_json()},
    )

    def secret_for(kid: str | None, sub: str | None) -> str:
        assert (kid, sub) == (KEY.id, KEY.project_id)
        return KEY.secret

    token = ParticipantToken.verified(text, secret_for=secret_for)

    assert (token.name, token.role, token.version, token.expires_at) == ("ada", "agent", "0.6.13", None)
    assert (token.grant_scope("room"), token.grant_scope("tunnel_ports")) == ("lobby", "9000,80")
    assert token.get_api_grant() == SCOPE
    assert token.extra_payload == {"team": 7}


def test_a_token_of_ours_is_read_by_the_sdk(sdk: Program) -> None:
    token = ParticipantToken(name="ada", extra_payload={"team": 7})
    token.add_room_grant("lobby")
    token.add_role_grant("tool")
    token.add_api_grant(SCOPE)

    seen = sdk(
        """
from meshagent.api.participant_token import ParticipantToken
token = ParticipantToken.from_jwt(given["jwt"], token=given["secret"])
result = {
    "name": token.name, "role": token.role, "kid": token.api_key_id, "sub": token.project_id,
    "version": token.version, "room": token.grant_scope("room"), "team": token.extra_payload["team"],
    "send": [token.get_api_grant().queues.can_send(queue) for queue in ("jobs", "other")],
    "write": token.get_api_grant().storage.can_write("data/x"),
    "admin": token.get_api_grant().admin is not None,
}
""",
        {"jwt": token.to_jwt(api_key=encode_api_key(KEY)), "secret": KEY.secret},
    )

    assert seen == {
        "name": "ada",
        "role": "tool",
        "kid": KEY.id,
        "sub": KEY.project_id,
        "version": "0.6.13",
        "room": "lobby",
        "team": 7,
        "send": [True, False],
        "write": False,
        "admin": False,
    }


def test_both_sides_write_the_same_claims(sdk: Program) -> None:
    theirs = sdk(
        """
from meshagent.api.participant_token import ApiScope, ParticipantToken
token = ParticipantToken(name="ada", extra_payload={"team": 7})
token.add_room_grant("lobby")
token.add_role_grant("agent")
token.add_tunnel_grant(["9000"])
token.add_api_grant(ApiScope.agent_default())
result = token.to_jwt(api_key=given)
""",
        encode_api_key(KEY),
    )
    token = ParticipantToken(name="ada", extra_payload={"team": 7})
    token.add_room_grant("lobby")
    token.add_role_grant("agent")
    token.add_tunnel_grant([9000])
    token.add_api_grant(ApiScope.agent_default())
    ours = token.to_jwt(api_key=encode_api_key(KEY), expiration=NO_EXPIRATION)

    options: Any = {"verify_signature": False}
    claims = jwt.decode(ours, options=options)
    assert claims.pop("iat") > 0  # ours: when it was signed, so that tokens from before a deletion open nothing
    assert claims == jwt.decode(theirs, options=options)
    assert jwt.get_unverified_header(ours) == jwt.get_unverified_header(theirs)


def test_scopes_have_one_wire_form(sdk: Program) -> None:
    theirs = sdk(
        """
from meshagent.api.participant_token import ApiScope, ParticipantGrant
scopes = {"agent_default": ApiScope.agent_default(), "full": ApiScope.full(), "given": ApiScope.model_validate(given)}
result = {name: ParticipantGrant(name="api", scope=scope).to_json()["scope"] for name, scope in scopes.items()}
""",
        SCOPE.to_json(),
    )

    assert theirs == {
        "agent_default": ApiScope.agent_default().to_json(),
        "full": ApiScope.full().to_json(),
        "given": SCOPE.to_json(),
    }


def test_api_keys_have_one_text_form(sdk: Program) -> None:
    theirs = sdk(
        """
from meshagent.api.keys import ApiKey, encode_api_key, parse_api_key
key = parse_api_key(given)
result = [key.id, key.project_id, key.secret, encode_api_key(key)]
""",
        encode_api_key(KEY),
    )

    assert theirs == [KEY.id, KEY.project_id, KEY.secret, encode_api_key(KEY)]
    assert parse_api_key(theirs[3]) == KEY


def test_messages_of_the_sdk_are_read_here(sdk: Program) -> None:
    packets = sdk(
        """
import asyncio, base64
from meshagent.api.messaging import JsonBody, pack_message
from meshagent.api.protocol import Protocol

class Collector(Protocol):
    async def send_packet(self, data):
        result.append(base64.b64encode(data).decode())

async def main():
    sender = Collector()
    await sender._send_message(0, "storage.write", bytes(pack_message({"path": "é"}, bytes(range(256)) * 20)))
    await sender._send_message(1, "__response__", bytes(JsonBody(json={"a": 1}).pack()))

result = []
asyncio.run(main())
""",
        None,
    )
    connection = RoomConnection()
    assert connection.request("x", {})[0] == 1

    events = [event for packet in packets if (event := connection.receive(base64.b64decode(packet))) is not None]

    assert events[0] == MessageReceived(0, "storage.write", {"path": "é"}, bytes(range(256)) * 20, {})
    assert isinstance(events[1], ReplyReceived)
    assert (events[1].id, events[1].response) == (1, JsonResponse(json={"a": 1}))
    assert len(events) == 2


@pytest.mark.parametrize("slice_bytes", [1000, SERVER_SLICE])
def test_messages_of_ours_are_read_by_the_sdk(sdk: Program, slice_bytes: int) -> None:
    connection = RoomConnection(slice_bytes=slice_bytes)
    payload = b"\x00\xff" * 5000
    _, request = connection.request("agent.tool_call", {"name": "é"}, payload, trace={"traceparent": "00-x"})
    stream = [*request, *(packet for number, body in enumerate(BODIES) for packet in connection.reply(number, body))]

    seen = sdk(
        """
import asyncio, base64
from meshagent.api.messaging import unpack_message, unpack_response
from meshagent.api.protocol import Protocol

def body_of(message):
    if message.type != "__response__":
        return unpack_message(message.data)
    body = unpack_response(message.data)
    return body.to_json(), body.get_data() or b""

async def main():
    receiver = Protocol()
    for packet in given:
        receiver.receive_packet(base64.b64decode(packet))
    receiver._recv_ch.close()
    async for message in receiver._recv_ch:
        header, payload = body_of(message)
        result.append([message.id, message.type, header, base64.b64encode(payload).decode()])

result = []
asyncio.run(main())
""",
        [base64.b64encode(packet).decode() for packet in stream],
    )

    bodies = [(body.to_json(), body.data if isinstance(body, FileResponse) else b"") for body in BODIES]
    # The SDK knows no error numbers, and must not stumble over them.
    bodies[-1][0].pop("code")
    expected = [[1, "agent.tool_call", {"name": "é"}, base64.b64encode(payload).decode()]]
    expected += [
        [number, "__response__", header, base64.b64encode(data).decode()]
        for number, (header, data) in enumerate(bodies)
    ]
    assert seen == expected
