import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from meshhost.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No variable of the machine's, and directories of the test's own."""
    for field in Settings.model_fields.values():
        names = getattr(field.validation_alias, "choices", [field.validation_alias])
        for name in names:
            monkeypatch.delenv(str(name), raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MESHHOST_DATA_DIR", str(tmp_path / "data"))
    return monkeypatch


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The room client that commands get, without a room."""
    fake = MagicMock()
    for service in ("queues", "storage", "agents", "messaging"):
        setattr(fake, service, AsyncMock())

    def run_in_room(given: str | None, use: Callable[[Any], Awaitable[Any]], *, only_looks: bool = False) -> Any:
        async def work() -> Any:
            return await use(fake)

        fake.joined, fake.only_looks = given, only_looks
        return asyncio.run(work())

    monkeypatch.setattr("meshhost.cli.connect.run_in_room", run_in_room)
    return fake
