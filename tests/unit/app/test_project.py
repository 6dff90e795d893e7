import json
import stat

import pytest

from meshhost.app import project as project_module
from meshhost.app.project import api_key_of, known_keys, read_project, set_up_project
from meshhost.errors import InvalidApiKeyError, SettingsError
from meshhost.identity.keys import encode_api_key, new_api_key, parse_api_key
from meshhost.settings import read_settings

PROJECT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def config_dir(tmp_path, monkeypatch):
    path = tmp_path / "config" / "meshhost"
    for name in ("API_KEY", "API_URL"):
        monkeypatch.delenv(f"MESHHOST_{name}", raising=False)
        monkeypatch.delenv(f"MESHAGENT_{name}", raising=False)
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(path))
    return path


def test_nothing_is_there_at_first(config_dir):
    assert read_project(config_dir) is None
    assert known_keys(read_settings()) == []
    with pytest.raises(SettingsError, match="run `meshhost setup`, or set MESHHOST_API_KEY"):
        api_key_of(read_settings())


def test_a_project_is_made_once_and_for_its_owner_only(config_dir):
    made, is_new = set_up_project(read_settings())
    again, is_new_again = set_up_project(read_settings())
    assert (is_new, is_new_again, again) == (True, False, made)
    assert read_project(config_dir) == made
    path = config_dir / "project.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config_dir.stat().st_mode) == 0o700
    assert [entry.name for entry in config_dir.iterdir()] == ["project.json"]
    key = made.api_key.get_secret_value()
    assert parse_api_key(key).project_id == made.project_id
    assert api_key_of(read_settings()) == key
    assert [one.project_id for one in known_keys(read_settings())] == [made.project_id]
    assert key not in repr(made)


def test_a_key_in_the_environment_is_taken_over(config_dir, monkeypatch):
    first, _ = set_up_project(read_settings())
    key = encode_api_key(new_api_key(PROJECT))
    monkeypatch.setenv("MESHHOST_API_KEY", key)
    monkeypatch.setenv("MESHHOST_API_URL", "http://rooms.example:9")
    settings = read_settings()
    assert api_key_of(settings) == key
    assert {one.project_id for one in known_keys(settings)} == {first.project_id, PROJECT}
    made, is_new = set_up_project(settings)
    assert (made.api_url, made.project_id, is_new) == ("http://rooms.example:9", PROJECT, True)
    assert set_up_project(settings) == (made, False)
    assert len(known_keys(settings)) == 1


def test_a_key_that_is_none_is_refused(config_dir, monkeypatch):
    monkeypatch.setenv("MESHHOST_API_KEY", "nonsense")
    with pytest.raises(InvalidApiKeyError):
        set_up_project(read_settings())
    with pytest.raises(SettingsError, match="MESHHOST_API_KEY or the stored project: not an API key") as error:
        known_keys(read_settings())
    assert "nonsense" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"api_url": 1, "project_id": "p", "api_key": "k"}'])
def test_a_damaged_file_is_named_and_never_overwritten(config_dir, content):
    config_dir.mkdir(parents=True)
    path = config_dir / "project.json"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"project\.json is damaged: delete it and run `meshhost setup`"):
        set_up_project(read_settings())
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_is_named(config_dir):
    (config_dir / "project.json").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"cannot read .*project\.json: Is a directory"):
        read_project(config_dir)


def test_a_directory_that_cannot_be_written_is_named(config_dir):
    config_dir.parent.mkdir()
    config_dir.write_text("a file")
    with pytest.raises(SettingsError, match=r"project\.json: Not a directory"):
        set_up_project(read_settings())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(config_dir, monkeypatch):
    made, _ = set_up_project(read_settings())
    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(new_api_key(PROJECT)))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(project_module.os, "fsync", full)
    with pytest.raises(SettingsError, match=r"cannot write .*No space left on device"):
        set_up_project(read_settings())
    assert read_project(config_dir) == made
    assert [entry.name for entry in config_dir.iterdir()] == ["project.json"]


def test_members_of_a_later_version_are_ignored(config_dir):
    made, _ = set_up_project(read_settings())
    path = config_dir / "project.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": 1}))
    assert read_project(config_dir) == made
