import asyncio
from pathlib import Path
from typing import Any

import pytest

from meshhost.app import embedded
from meshhost.app.config_file import ServerFile
from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.app.engines import EngineRequest, make_engine
from meshhost.errors import LimitExceededError, SettingsError
from meshhost.gateway.local.provider import LocalProvider
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.settings import read_settings
from meshhost.stores.queues import QueueLimits
from meshhost.stores.sqlite.queues import SqliteQueueStore
from meshhost.testing.server import running_server


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "MESHHOST_API_KEY", "MESHAGENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))


def providers(**tables):
    return embedded.providers_of(ServerFile.model_validate(tables), read_settings())


def test_without_any_setting_the_local_model_answers():
    assert isinstance(providers().find("anything"), LocalProvider)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_openais_variables_name_the_provider(monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_MODEL", "gpt-x")
    provider = providers().find("anything")
    assert isinstance(provider, OpenAICompatibleProvider)
    assert provider._default_model == "gpt-x"
    assert provider._api_key == ("http://127.0.0.1:1/v1" if name == "OPENAI_API_KEY" else "none")


def test_the_files_providers_win_and_keep_their_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    key = tmp_path / "key"
    key.write_text("sk-file\n")
    table = providers(
        providers=[
            {
                "models": "gpt-*",
                "base_url": "http://127.0.0.1:1/v1",
                "api_key_file": str(key),
                "default_model": "gpt-y",
            },
            {"models": "small", "kind": "local"},
            {"models": "*", "base_url": "http://127.0.0.1:2/v1"},
        ]
    )
    first, small, other = [table.find(model) for model in ("gpt-5", "small", "claude")]
    assert (first._api_key, first._default_model, first._base_url) == ("sk-file", "gpt-y", "http://127.0.0.1:1/v1")
    assert isinstance(small, LocalProvider)
    assert other._api_key == "sk-environment"


@pytest.mark.parametrize(
    ("url", "path"),
    [(None, "data/queues.db"), ("sqlite:///q.db", "q.db"), ("sqlite:////tmp/q.db", "/tmp/q.db")],
)
def test_the_queues_are_in_a_file(url, path):
    file = ServerFile.model_validate({"queues": {"max_attempts": 3, "max_depth": 4, "max_message_bytes": 5}})
    limits = embedded.limits_of(file)
    engine = make_engine(EngineRequest(url, Path("data"), limits))
    assert isinstance(engine.queues, SqliteQueueStore)
    assert repr(engine.queues) == f"<SqliteQueueStore {path!r} open=False>"
    assert engine.queues._limits is limits
    assert (limits.max_attempts, limits.max_depth, limits.max_message_bytes) == (3, 4, 5)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:x", "mysql://u:secret@h/db", "q.db", ""])
def test_another_database_is_refused_without_showing_it(url):
    with pytest.raises(SettingsError, match="MESHHOST_DATABASE_URL: expected sqlite:///path") as error:
        make_engine(EngineRequest(url, Path("data"), QueueLimits()))
    assert "secret" not in str(error.value)


async def test_a_data_directory_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot make the data directory .*/file/data: Not a directory"):
        async with open_room_server(ServerOptions(port=0, data_dir=tmp_path / "file" / "data")):
            pass


async def test_a_data_directory_that_is_not_writable_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.os, "access", lambda *_: False)
    with pytest.raises(SettingsError, match="is not writable"):
        async with open_room_server(ServerOptions(port=0, data_dir=tmp_path)):
            pass


@pytest.mark.parametrize(
    ("tables", "member"),
    [
        ({"queues": {"max_message_bytes": 64 * 1024 * 1024}}, "queues.max_message_bytes"),
        ({"server": {"max_in_flight_bytes": 32 * 1024 * 1024}}, "server.max_in_flight_bytes"),
    ],
)
async def test_limits_that_contradict_each_other_are_named(tmp_path: Path, tables: Any, member: str) -> None:
    options = ServerOptions(port=0, data_dir=tmp_path, file=ServerFile.model_validate(tables))
    with pytest.raises(SettingsError, match=f"^{member}: expected at "):
        async with open_room_server(options):
            pass


async def test_limits_of_the_file_and_the_environment_reach_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHHOST_EDGE_HEADER_SECONDS", "0.1")
    tables = {"server": {"max_header_bytes": 100_000, "message_seconds": 9}, "edge": {"bytes_per_second": 5}}
    async with running_server(tmp_path, file=ServerFile.model_validate(tables)) as server, server.client() as a:
        with pytest.raises(LimitExceededError, match=r"header of \d+ bytes, at most 100000"):
            await a.queues.send(name="jobs", message={"text": "x" * 100_000})
        await a.queues.send(name="jobs", message={"text": "x" * 90_000})
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
