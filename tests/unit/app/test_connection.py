"""What `meshhost.connect` joins with: the environment's, else what setup stored."""

from pathlib import Path

import pytest

import meshhost
from meshhost.app.project import set_up_project
from meshhost.errors import InvalidRequestError, SettingsError
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tokens import ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for field in Settings.model_fields.values():
        for name in getattr(field.validation_alias, "choices", [field.validation_alias]):
            monkeypatch.delenv(str(name), raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path))
    return monkeypatch


def claims(room: RoomClient) -> ParticipantToken:
    key = parse_api_key(set_up_project(read_settings())[0].api_key.get_secret_value())
    return ParticipantToken.from_jwt(room.protocol.token, token=key.secret)


def test_a_program_joins_with_what_setup_stored(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MESHHOST_API_URL", "https://rooms.example")
    set_up_project(read_settings())
    environment.delenv("MESHHOST_API_URL")

    room = meshhost.connect("my-room")

    assert room.protocol.url == "wss://rooms.example/rooms/my-room"
    token = claims(room)
    assert (token.name, token.role, token.grant_scope("room")) == ("program", "user", "my-room")
    assert token.get_api_grant() == ApiScope.agent_default()


def test_a_program_chooses_its_name_role_and_rights(environment: pytest.MonkeyPatch) -> None:
    set_up_project(read_settings())
    environment.setenv("MESHHOST_ROOM", "office")
    scope = ApiScope(queues=QueuesGrant())

    room = meshhost.connect(name="mailer", role="agent", permissions=scope)

    assert room.protocol.url == "ws://127.0.0.1:8080/rooms/office"
    token = claims(room)
    assert (token.name, token.role, token.get_api_grant()) == ("mailer", "agent", scope)


def test_a_ready_made_token_needs_no_key(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MESHHOST_TOKEN", "a.b.c")

    assert meshhost.connect("my-room").protocol.token == "a.b.c"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(SettingsError, match="run `meshhost setup`"):
        meshhost.connect("my-room")
    with pytest.raises(SettingsError, match="set MESHHOST_ROOM"):
        meshhost.connect()
    with pytest.raises(InvalidRequestError, match="room name"):
        meshhost.connect("My Room")


def test_the_package_has_no_other_names_than_it_says() -> None:
    with pytest.raises(AttributeError, match="'meshhost' has no attribute 'conect'"):
        meshhost.conect  # type: ignore[attr-defined]  # noqa: B018
