"""A user's environment of their own, and a room server that their commands use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshhost.settings import Settings
from meshhost.testing.server import RunningServer, running_server


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for field in Settings.model_fields.values():
        for name in getattr(field.validation_alias, "choices", [field.validation_alias]):
            monkeypatch.delenv(str(name), raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MESHHOST_ROOM", "demo")
    monkeypatch.chdir(tmp_path)
    # pytest has its own handlers on the root logger.
    monkeypatch.setattr("meshhost.cli.log_output.log_for_command", lambda: None)
    return monkeypatch


@pytest.fixture
async def server(environment: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server") as running:
        environment.setenv("MESHHOST_API_URL", running.url)
        environment.setenv("MESHHOST_API_KEY", running.api_key)
        yield running
