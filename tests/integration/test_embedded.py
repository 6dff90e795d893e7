"""The room server as `meshhost room serve` and `meshhost service run` wire it."""

from pathlib import Path

import pytest

from meshhost.app.config_file import ServerFile
from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.app.project import set_up_project
from meshhost.errors import SettingsError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.settings import read_settings
from meshhost.stores.queues import NewMessage, QueueKey
from meshhost.transport.websocket_client import WebSocketClientProtocol


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("API_KEY", "API_URL", "SECRET"):
        monkeypatch.delenv(f"MESHHOST_{name}", raising=False)
        monkeypatch.delenv(f"MESHAGENT_{name}", raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))


def token(name: str, **signing: str) -> str:
    grants = [ParticipantGrant(name="room", scope="room"), ParticipantGrant(name="role", scope="user")]
    return ParticipantToken(name=name, grants=grants).to_jwt(**signing)


async def test_the_users_own_project_is_accepted_also_when_it_is_made_later(tmp_path: Path) -> None:
    async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "data")) as server:
        project, _ = set_up_project(read_settings())
        jwt = token("me", api_key=project.api_key.get_secret_value())
        async with RoomClient(protocol=WebSocketClientProtocol(url=server.room_url("room"), token=jwt)) as room:
            assert room.room_name == "room"


async def test_a_secret_of_the_environment_signs_tokens_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_SECRET", "a-secret-of-at-least-thirty-two-bytes")
    async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "data")) as server:
        jwt = token("me")
        async with RoomClient(protocol=WebSocketClientProtocol(url=server.room_url("room"), token=jwt)) as room:
            assert room.local_participant.get_attribute("name") == "me"


async def test_the_files_settings_reach_the_server(tmp_path: Path) -> None:
    file = ServerFile.model_validate({"server": {"public_url": "https://rooms.example/"}, "storage": {"url": None}})
    async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "data", file=file)) as server:
        assert server.room_url("room") == "wss://rooms.example/rooms/room"


async def test_an_address_in_use_is_explained_and_everything_is_closed(tmp_path: Path) -> None:
    async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "a")) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with open_room_server(ServerOptions(port=port, data_dir=tmp_path / "b")):
                pass


async def test_the_series_of_queues_go_on_after_a_restart(tmp_path: Path) -> None:
    queue = QueueKey(RoomKey(TenantId("acme"), "room"), "jobs")
    async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "data")) as server:
        await server.engines.queues.send(queue, NewMessage("1"))
        await server.parts.series.sample()
    async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "data")) as server:
        points = await server.parts.series.of_queue(queue)
        assert sum(point.counts.sent for point in points) == 1
