"""Where the keys that encrypt secrets come from, and what is said when they cannot be had."""

from pathlib import Path

import pytest

from meshhost.errors import SettingsError
from meshhost.server.configured.key_files import sealing_keys
from meshhost.server.configured.sealing import new_key_line


def test_given_keys_go_before_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{new_key_line('f1')}\n")
    assert [key.id for key in sealing_keys(new_key_line("g1"), file, own=None)()] == ["g1"]
    assert [key.id for key in sealing_keys(None, file, own=tmp_path / "own")()] == ["f1"]


def test_the_own_file_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    own = tmp_path / "config" / "secrets.key"
    made = sealing_keys(None, None, own=own)()
    assert sealing_keys(None, None, own=own)() == made
    assert own.stat().st_mode & 0o777 == 0o600
    assert list(own.parent.iterdir()) == [own]


def test_a_server_that_must_not_make_a_key_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set MESHHOST_SECRETS_KEY to id:base64"):
        sealing_keys(None, None, own=None)()
    with pytest.raises(SettingsError, match="there is no key to encrypt secrets with"):
        sealing_keys(None, tmp_path / "none", own=tmp_path / "own")()


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"cannot read {tmp_path}"):
        sealing_keys(None, tmp_path, own=None)()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"cannot (read|write) "):
        sealing_keys(None, None, own=tmp_path / "file" / "secrets.key")()
