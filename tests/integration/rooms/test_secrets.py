"""Secrets of tenants by REST: who may, what is shown, what is refused, and that nothing of them is in a file or a log."""

import base64
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.server.config import SecretUse
from meshhost.testing.server import RunningServer, running_server

VALUE = "sk-very-secret-value"


class Rest:
    """Asks as a tenant."""

    def __init__(self, http: aiohttp.ClientSession, server: RunningServer, key: ApiKey | None = None) -> None:
        self._http = http
        own = key or server.key
        self.url = f"{server.url}/accounts/projects/{own.project_id}/secrets"
        self._headers = {"Authorization": f"Bearer {encode_api_key(own)}"}

    async def __call__(self, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        async with self._http.request(method, self.url + path, json=body, headers=self._headers) as response:
            return response.status, await response.json() if response.content_length else None


@pytest.fixture
def rest(http: aiohttp.ClientSession, server: RunningServer) -> Rest:
    return Rest(http, server)


async def test_a_secret_is_made_listed_changed_and_deleted_and_never_shown(
    server: RunningServer, rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    status, made = await rest("POST", body={"name": "openai", "type": "keys", "data": {"OPENAI_API_KEY": VALUE}})
    assert (status, made["name"], made["type"], made["data"]) == (200, "openai", "keys", {})

    _, listed = await rest("GET")
    assert listed == {"secrets": [made]}
    assert set(made) == {"id", "name", "type", "data", "created_at", "changed_at"}

    status, changed = await rest("PUT", f"/{made['id']}", {"name": "llm", "type": "keys", "data": {"KEY": "new"}})
    assert (status, changed["name"], changed["created_at"]) == (200, "llm", made["created_at"])
    secrets = server.server.engines.secrets
    assert await secrets.values(server.key.project_id, [SecretUse("llm")]) == {"KEY": "new"}  # type: ignore[arg-type]

    assert (await rest("DELETE", f"/{made['id']}"))[0] == 204
    assert (await rest("GET"))[1] == {"secrets": []}
    assert (await rest("DELETE", f"/{made['id']}"))[0] == 404
    assert VALUE not in caplog.text
    audit = [record for record in caplog.records if record.msg.startswith("secret ")]
    assert [record.msg for record in audit] == ["secret created", "secret changed", "secret deleted"]
    assert audit[0].__dict__["key_id"] == server.key.id


async def test_another_tenant_neither_sees_nor_uses_it(
    server: RunningServer, rest: Rest, http: aiohttp.ClientSession, other_key: ApiKey
) -> None:
    _, made = await rest("POST", body={"name": "openai", "data": {"KEY": VALUE}})
    other = Rest(http, server, other_key)

    assert (await other("GET"))[1] == {"secrets": []}
    assert (await other("PUT", f"/{made['id']}", {"name": "x", "data": {"KEY": "x"}}))[0] == 404
    assert (await other("DELETE", f"/{made['id']}"))[0] == 404
    with pytest.raises(Exception, match="no secret 'openai'"):
        await server.server.engines.secrets.values(other_key.project_id, [SecretUse("openai")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"data": {"A": "b"}}, 400, "name: expected a text"),
        ({"name": "\x00", "data": {"A": "b"}}, 400, "name: expected 1 to 128 printable"),
        ({"name": "x" * 129, "data": {"A": "b"}}, 400, "name: expected 1 to 128 printable"),
        ({"name": "x"}, 400, "data: expected an object of 1 to 64 texts"),
        ({"name": "x", "data": {}}, 400, "data: expected an object of 1 to 64 texts"),
        ({"name": "x", "data": {"A": 1}}, 400, "data.A: expected a text"),
        ({"name": "x", "data": {"A": "\ud800"}}, 400, "data.A: expected a text"),
        ({"name": "x", "data": {"": "b"}}, 400, "data: expected names"),
        ({"name": "x", "data": {"A": "b" * 70_000}}, 400, "data: expected at most 65536 characters"),
        ({"name": "x", "data": {str(n): "b" for n in range(65)}}, 400, "data: expected an object of 1 to 64"),
        ({"name": "x", "type": "other", "data": {"A": "b"}}, 400, "type: expected keys"),
        ({"name": "x", "daat": {"A": "b"}}, 400, "daat: not a name that is known here"),
        ({"name": "x", "type": "docker", "data": {"server": "s"}}, 501, "meshhost pulls no images"),
    ],
)
async def test_what_is_wrong_is_named(rest: Rest, body: dict[str, Any], status: int, text: str) -> None:
    found, answer = await rest("POST", body=body)
    assert (found, text in answer["error"]) == (status, True), answer


async def test_a_name_is_taken_once_and_there_is_a_limit(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await rest("POST", body={"name": "a", "data": {"A": "b"}}))[0] == 200
    assert (await rest("POST", body={"name": "a", "data": {"A": "b"}}))[0] == 409
    for number in range(199):
        await rest("POST", body={"name": f"a{number}", "data": {"A": "b"}})
    status, answer = await rest("POST", body={"name": "more", "data": {"A": "b"}})
    assert (status, answer["error"]) == (429, "the tenant has 200 secrets already, which is the limit")


async def test_a_member_is_found_by_the_name_of_the_variable_or_is_the_only_one(
    server: RunningServer, rest: Rest
) -> None:
    await rest("POST", body={"name": "one", "data": {"key": "1"}})
    await rest("POST", body={"name": "two", "data": {"a": "2", "B": "3"}})
    tenant: Any = server.key.project_id
    secrets = server.server.engines.secrets

    assert await secrets.values(tenant, [SecretUse("one", "X"), SecretUse("two", "B")]) == {"X": "1", "B": "3"}
    assert await secrets.value(tenant, "one", "anything") == "1"
    assert await secrets.value(tenant, "none", "anything") is None
    with pytest.raises(Exception, match="has several members, and none is 'C'"):
        await secrets.values(tenant, [SecretUse("two", "C")])


def line(name: str, fill: bytes) -> str:
    return f"{name}:{base64.b64encode(fill * 32).decode()}"


async def test_on_disk_a_secret_is_encrypted_and_a_new_key_takes_over_at_the_next_start(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir = tmp_path / "data"
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MESHHOST_SECRETS_KEY", line("k1", b"1"))
    async with running_server(data_dir) as server:
        tenant: Any = server.key.project_id
        await Rest(http, server)("POST", body={"name": "openai", "data": {"KEY": VALUE}})
        for path in data_dir.glob("*.db*"):
            assert VALUE.encode() not in path.read_bytes()
    key = server.key

    monkeypatch.setenv("MESHHOST_SECRETS_KEY", f"{line('k2', b'2')},{line('k1', b'1')}")
    async with running_server(data_dir, key=key) as server:
        await server.server.engines.secrets.renew()  # waits for what the start began
        assert await server.server.engines.secrets.value(tenant, "openai", "KEY") == VALUE

    monkeypatch.setenv("MESHHOST_SECRETS_KEY", line("k2", b"2"))
    async with running_server(data_dir, key=key) as server:
        assert await server.server.engines.secrets.value(tenant, "openai", "KEY") == VALUE

    monkeypatch.setenv("MESHHOST_SECRETS_KEY", line("k3", b"3"))
    async with running_server(data_dir, key=key) as server:
        with pytest.raises(Exception, match="its key 'k2' is not among the keys of this server"):
            await server.server.engines.secrets.value(tenant, "openai", "KEY")
    monkeypatch.setenv("MESHHOST_SECRETS_KEY", "nonsense")
    async with running_server(data_dir, key=key) as server:
        status, answer = await Rest(http, server, key)("POST", body={"name": "x", "data": {"KEY": "y"}})
        assert status == 503
        assert "MESHHOST_SECRETS_KEY: expected lines such as" in answer["error"]


async def test_a_server_over_sqlite_makes_its_key_when_the_first_secret_comes(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    file = tmp_path / "config" / "secrets.key"
    async with running_server(tmp_path / "data") as server:
        assert not file.exists()
        assert (await Rest(http, server)("POST", body={"name": "x", "data": {"KEY": "y"}}))[0] == 200
        assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("MESHHOST_SECRETS_KEY_FILE", str(tmp_path / "none"))
    async with running_server(tmp_path / "data", key=server.key) as server:
        status, answer = await Rest(http, server)("POST", body={"name": "z", "data": {"KEY": "y"}})
        assert status == 503
        assert "there is no key to encrypt secrets with: set MESHHOST_SECRETS_KEY" in answer["error"]
