"""The operator's key: made once, readable by its owner only, found again."""

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from meshhost.app.operator import find_operator_key, make_operator_key, operator_key_path
from meshhost.errors import SettingsError
from meshhost.settings import Settings


def settings_in(directory: Path, **changes: object) -> Settings:
    return Settings().model_copy(update={"config_dir": directory / "config", "operator_key": None, **changes})


def test_the_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert find_operator_key(settings) is None
    key = make_operator_key(settings)
    assert key.startswith("mo-")
    assert make_operator_key(settings) == find_operator_key(settings) == key
    [file] = operator_key_path(settings).parent.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_environment_wins(tmp_path: Path) -> None:
    make_operator_key(settings_in(tmp_path))
    settings = settings_in(tmp_path, operator_key=SecretStr(" 0123456789abcdef\n"))
    assert make_operator_key(settings) == "0123456789abcdef"


@pytest.mark.parametrize("text", ["", "short", "with a space in it", "ma-an-api-key-of-some-tenant", "ü" * 20])
def test_what_cannot_be_an_operators_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="MESHHOST_OPERATOR_KEY"):
        find_operator_key(settings_in(tmp_path, operator_key=SecretStr(text)))


def test_a_directory_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file")
    with pytest.raises(SettingsError, match=r"cannot (read|write) .*operator\.key"):
        make_operator_key(settings_in(tmp_path))
