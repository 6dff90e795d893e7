"""What `meshhost room serve` says before it serves."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from meshhost.app.config_file import ProviderEntry, ServerFile
from meshhost.app.embedded import ServerOptions
from meshhost.cli import serving

PROVIDER = ProviderEntry.model_validate({"models": "*", "base_url": "https://models.example/v1"})


@pytest.mark.parametrize(
    ("variable", "file", "is_told"),
    [
        (None, ServerFile(), True),
        ("OPENAI_BASE_URL", ServerFile(), False),
        (None, ServerFile(providers=[PROVIDER]), False),
    ],
)
def test_a_server_without_a_model_says_what_helps(
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    variable: str | None,
    file: ServerFile,
    is_told: bool,
) -> None:
    async def serve(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0)

    environment.setenv("MESHHOST_LOCAL_MODEL", str(tmp_path / "none.gguf"))
    if variable is not None:
        environment.setenv(variable, "https://models.example/v1")
    environment.setattr(serving, "_serve", serve)
    environment.setattr(serving, "log_for_server", lambda: None)

    serving.serve_rooms(ServerOptions(host="127.0.0.1", port=0, data_dir=tmp_path, file=file), as_json=False)

    assert ("agents that use a model will fail: OPENAI_API_KEY is not set" in capsys.readouterr().err) is is_told
