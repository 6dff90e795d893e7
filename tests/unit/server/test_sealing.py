"""What encrypts the secrets of tenants: keys by id, what belongs to a place, and what is said of a missing or wrong key."""

import json

import pytest

from meshhost.errors import SecretsLockedError, SettingsError
from meshhost.server.configured.sealing import Sealer, SealingKey, new_key_line, read_keys

FIRST, SECOND = SealingKey("k1", b"1" * 32), SealingKey("k2", b"2" * 32)


def sealer(*keys: SealingKey) -> Sealer:
    return Sealer(lambda: keys)


def test_what_was_sealed_can_be_opened_at_its_place_only() -> None:
    box = sealer(FIRST)
    sealed = box.seal("é secret", place="acme/1")

    assert box.open(sealed, place="acme/1") == "é secret"
    assert "secret" not in sealed
    assert box.seal("é secret", place="acme/1") != sealed
    with pytest.raises(SecretsLockedError, match="'k1' of this server is not the one"):
        box.open(sealed, place="rival/1")


def test_a_new_key_seals_and_older_ones_open() -> None:
    old = sealer(FIRST).seal("x", place="p")
    box = sealer(SECOND, FIRST)

    assert box.open(old, place="p") == "x"
    assert not box.is_current(old)
    assert box.is_current(box.seal("x", place="p"))
    assert box.key_id == "k2"


def test_a_missing_or_wrong_key_is_named() -> None:
    sealed = sealer(FIRST).seal("x", place="p")

    with pytest.raises(SecretsLockedError, match="its key 'k1' is not among the keys of this server"):
        sealer(SECOND).open(sealed, place="p")
    with pytest.raises(SecretsLockedError, match="not the one it was encrypted with"):
        sealer(SealingKey("k1", b"3" * 32)).open(sealed, place="p")
    for damaged in ("", "{}", "[]", '{"key": "k1", "sealed": "é"}'):
        with pytest.raises(SecretsLockedError, match="damaged in the database"):
            sealer(FIRST).open(damaged, place="p")
    cut = json.dumps({"key": "k1", "sealed": "AAAA"})
    with pytest.raises(SecretsLockedError, match="not the one"):
        sealer(FIRST).open(cut, place="p")


def test_without_a_key_the_reason_is_said_and_another_try_may_find_one() -> None:
    found: list[SealingKey] = []

    def keys() -> list[SealingKey]:
        if not found:
            raise SettingsError("there is no key")
        return found

    box = Sealer(keys)
    with pytest.raises(SecretsLockedError, match="the secret cannot be used: there is no key"):
        box.seal("x", place="p")
    found.append(FIRST)
    assert box.open(box.seal("x", place="p"), place="p") == "x"


def test_keys_are_read_from_lines_or_between_commas() -> None:
    one, other = new_key_line("k1"), new_key_line("k2")
    assert [key.id for key in read_keys(f"{one}\n{other}\n", source="f")] == ["k1", "k2"]
    assert read_keys(f"{one},{other}", source="f") == read_keys(f"{one} \n {other}", source="f")
    assert "1" * 8 not in repr(FIRST)


@pytest.mark.parametrize("text", ["", "k1", "k1:abc", f"k 1:{'A' * 43}=", f"{'k' * 33}:{'A' * 43}", f"k1:{'A' * 42}é"])
def test_a_key_of_another_form_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^SOURCE: expected lines such as k1:BASE64") as raised:
        read_keys(text, source="SOURCE")
    assert "AAAA" not in str(raised.value)


def test_an_id_stands_for_one_key() -> None:
    with pytest.raises(SettingsError, match="each id once"):
        read_keys(f"{new_key_line('k1')},{new_key_line('k1')}", source="f")
