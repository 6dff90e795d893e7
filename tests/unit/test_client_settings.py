"""Clients read their variables without pydantic, and read the same as the model of all settings."""

import os
from dataclasses import fields
from typing import Any

import pytest

from meshhost.client_settings import ClientSettings, SecretText, read_client_settings
from meshhost.errors import SettingsError
from meshhost.settings import read_settings

NAMES = [each.name for each in fields(ClientSettings)]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(("MESHHOST_", "MESHAGENT_", "OTEL_")):
            monkeypatch.delenv(name)


def plain(value: Any) -> Any:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MESHHOST_API_URL": "https://h:8443/base/", "MESHHOST_API_KEY": "ma-1\n", "MESHHOST_ROOM": "r"},
        {"MESHAGENT_API_URL": "ws://theirs", "MESHAGENT_TOKEN": "t", "MESHAGENT_ROOM": "theirs", "MESHHOST_ROOM": ""},
        {"meshhost_room": "small", "MESHHOST_OPERATOR_KEY": " o ", "MESHHOST_SECRET": "s", "MESHHOST_ADMIN_KEY": "a"},
        {"MESHHOST_CONFIG_DIR": "~/elsewhere", "MESHHOST_PORT": "0", "MESHHOST_HOST_URL": "http://h"},
        {"MESHHOST_LOG_LEVEL": "debug", "MESHHOST_LOG_FORMAT": "json", "MESHHOST_PORT": "65535"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
        {"OTEL_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b"},
    ],
)
def test_a_client_reads_what_the_model_of_all_settings_reads(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    mine, all_settings = read_client_settings(), read_settings()

    assert {n: plain(getattr(mine, n)) for n in NAMES} == {n: plain(getattr(all_settings, n)) for n in NAMES} | {
        "given": all_settings.given & set(NAMES)
    }
    assert mine.log_level_number == all_settings.log_level_number


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MESHHOST_API_URL", "hidden"),
        ("MESHHOST_API_URL", "http://h x"),
        ("MESHAGENT_API_URL", "http://[::hidden"),
        ("MESHHOST_API_URL", "http://h:hidden"),
        ("MESHHOST_API_URL", "http://h:65536"),
        ("MESHHOST_API_URL", "http://h:0"),
        ("MESHHOST_PORT", "65536"),
        ("MESHHOST_PORT", "-1"),
        ("MESHHOST_PORT", "hidden"),
        ("MESHHOST_LOG_LEVEL", "hidden"),
        ("MESHHOST_LOG_FORMAT", "hidden"),
        ("MESHHOST_TOKEN", "hidden\nhidden"),
    ],
)
def test_a_wrong_value_is_refused_by_name_by_both_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError):
        read_settings()
    with pytest.raises(SettingsError) as caught:
        read_client_settings()

    assert str(caught.value).startswith(f"{name}: ")
    assert "hidden" not in str(caught.value)


def test_a_value_of_spaces_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_ROOM", "  ")
    monkeypatch.setenv("MESHHOST_API_URL", "\n")

    assert read_client_settings() == read_client_settings()
    assert read_client_settings().given == frozenset()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_API_KEY", "hidden")

    settings = read_client_settings()

    assert "hidden" not in repr(settings) + str(settings)
    assert settings.api_key == SecretText("hidden")
    assert hash(settings.api_key) == hash(SecretText("hidden"))
    assert settings.api_key != SecretText("other")
