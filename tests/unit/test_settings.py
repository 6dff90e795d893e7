"""The environment is read by both names, when asked, and never shown."""

import os
from pathlib import Path

import pytest

from meshhost.errors import SettingsError
from meshhost.settings import DEFAULT_API_URL, read_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(("MESHHOST_", "MESHAGENT_", "OPENAI_", "OTEL_")):
            monkeypatch.delenv(name)


def test_without_an_environment_there_are_defaults() -> None:
    settings = read_settings()

    assert settings.api_url == DEFAULT_API_URL
    assert (settings.api_key, settings.port, settings.local_model) == (None, None, None)
    assert settings.data_dir == Path(".meshhost")
    assert settings.config_dir == Path.home() / ".config" / "meshhost"


def test_a_variable_is_read_by_either_name_and_ours_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAGENT_ROOM", "theirs")
    assert read_settings().room == "theirs"

    monkeypatch.setenv("MESHHOST_ROOM", "ours")
    assert read_settings().room == "ours"


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_ROOM", "")
    assert read_settings().room is None

    monkeypatch.setenv("MESHAGENT_ROOM", "theirs")
    assert read_settings().room == "theirs"


def test_variables_of_other_programs_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "small")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318")

    assert (read_settings().openai_model, read_settings().otel_endpoint) == ("small", "http://otel:4318")


def test_paths_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_DATA_DIR", "~/data")
    monkeypatch.setenv("MESHHOST_LOCAL_MODEL", "/models/small.gguf")

    assert read_settings().data_dir == Path.home() / "data"
    assert read_settings().local_model == Path("/models/small.gguf")


@pytest.mark.parametrize("url", ["http://h/", "https://h:8443", "ws://[::1]:80//", "wss://h/base/"])
def test_the_api_url_loses_its_last_slash(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_API_URL", url)

    assert read_settings().api_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MESHHOST_API_URL", "hidden"),
        ("MESHHOST_API_URL", "ftp://hidden"),
        ("MESHHOST_API_URL", "http://"),
        ("MESHHOST_API_URL", "http://[::hidden"),
        ("MESHHOST_PORT", "hidden"),
        ("MESHHOST_PORT", "65536"),
        ("MESHAGENT_PORT", "-1"),
    ],
)
def test_a_wrong_value_is_refused_by_name_without_showing_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value).startswith(name.split("_", 1)[0][:4])
    assert name.split("_", 1)[1] in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_port_zero_asks_for_any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_PORT", "0")

    assert read_settings().port == 0


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "SECRET", "WEBHOOK_SECRET", "TOKEN"):
        monkeypatch.setenv(f"MESHHOST_{name}", "hidden")
    monkeypatch.setenv("OPENAI_API_KEY", "hidden")
    monkeypatch.setenv("MESHHOST_DATABASE_URL", "postgresql://me:hidden@db/meshhost")

    settings = read_settings()

    assert "hidden" not in repr(settings) + str(settings)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "hidden"
    assert settings.database_url == "postgresql://me:hidden@db/meshhost"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " "])
def test_values_lose_the_line_end_they_came_with(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"OPENAI_API_KEY": "sk", "MESHHOST_PORT": "8081", "MESHHOST_API_URL": "http://h"}.items():
        monkeypatch.setenv(name, f"{value}{end}")
    monkeypatch.setenv("MESHHOST_ROOM", end)

    settings = read_settings()

    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk"
    assert (settings.port, settings.api_url, settings.room) == (8081, "http://h", None)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("OPENAI_API_KEY", "sk\nmore", "line end"),
        ("MESHHOST_WEBHOOK_SECRET", "a\rb", "line end"),
        ("MESHHOST_API_URL", "http://h x", "without spaces"),
        ("MESHHOST_LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("MESHHOST_DRAIN_SECONDS", "inf", "finite"),
        ("MESHHOST_BLOCK_SECONDS", "1e999", "finite"),
        ("MESHHOST_TENANT_STARTS_PER_SECOND", "nan", "finite"),
    ],
)
def test_a_value_that_cannot_work_is_refused_and_named(
    name: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=text) as caught:
        read_settings()
    assert str(caught.value).startswith(f"{name}: ")
    assert "Value error" not in str(caught.value)
    assert "sk" not in str(caught.value)
