"""Projects, keys and room records."""

import stat
from pathlib import Path

import pytest

from meshhost.errors import AlreadyExistsError, InvalidTokenError, NotFoundError
from meshhost.identity.keys import ApiKey, new_api_key
from meshhost.stores.sqlite.identity import IdentityStore, Project

EXTRA = new_api_key("11111111-2222-3333-4444-555555555555")


@pytest.fixture
async def store(tmp_path: Path) -> IdentityStore:
    own = IdentityStore(tmp_path / "identity.db", extra_keys=lambda: [EXTRA])
    await own.open()
    return own


async def test_the_file_is_for_its_owner_only(store: IdentityStore, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "identity.db").stat().st_mode) == 0o600


async def test_keys_and_projects_survive(store: IdentityStore, tmp_path: Path) -> None:
    project = await store.create_project("p")
    key = await store.create_key(project.id, name="n", description="d")
    again = IdentityStore(tmp_path / "identity.db")
    await again.open()
    assert again.find_key(key.id) == key
    assert again.is_key(key)
    assert again.signing_key(project.id) == key
    assert [(info.id, info.name, info.description) for info in await again.keys(project.id)] == [(key.id, "n", "d")]
    assert await again.projects() == [Project(EXTRA.project_id, "default"), project]
    assert again.find_key(EXTRA.id) is None


async def test_a_key_belongs_to_a_project(store: IdentityStore) -> None:
    with pytest.raises(NotFoundError):
        await store.create_key("nope", name="n", description="")


async def test_a_key_that_was_set_up_later_is_found(tmp_path: Path) -> None:
    keys: list[ApiKey] = []
    store = IdentityStore(tmp_path / "identity.db", extra_keys=lambda: list(keys))
    await store.open()
    assert store.find_key(EXTRA.id) is None
    keys.append(EXTRA)
    assert store.find_key(EXTRA.id) == EXTRA
    assert store.signing_key(EXTRA.project_id) == EXTRA
    assert await store.projects() == [Project(EXTRA.project_id, "default")]


async def test_only_the_whole_key_is_the_key(store: IdentityStore) -> None:
    assert store.is_key(EXTRA)
    for wrong in (
        ApiKey(EXTRA.id, EXTRA.project_id, "x" * 64),
        ApiKey(EXTRA.id, EXTRA.project_id, "-" * 64),
        ApiKey(EXTRA.id, EXTRA.id, EXTRA.secret),
        ApiKey(EXTRA.id, EXTRA.id, "-" * 64),
        ApiKey(EXTRA.project_id, EXTRA.project_id, EXTRA.secret),
        ApiKey(EXTRA.project_id, EXTRA.project_id, "-" * 64),
        ApiKey(EXTRA.id, EXTRA.project_id, "ü"),
    ):
        assert not store.is_key(wrong)


async def test_a_secret_is_given_for_the_keys_own_project_only(store: IdentityStore) -> None:
    assert store.secret_for(EXTRA.id, EXTRA.project_id) == EXTRA.secret
    for key_id, project in ((EXTRA.id, None), (EXTRA.id, "other"), ("other", EXTRA.project_id), (None, None)):
        with pytest.raises(InvalidTokenError):
            store.secret_for(key_id, project)


async def test_a_token_without_a_key_id_has_the_default_secret(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path / "identity.db", default_secret="s")
    await store.open()
    assert store.secret_for(None, None) == "s"


async def test_a_revoked_key_is_gone(store: IdentityStore, tmp_path: Path) -> None:
    project = await store.create_project("p")
    key = await store.create_key(project.id, name="n", description="")
    with pytest.raises(NotFoundError):
        await store.delete_key("other", key.id)
    await store.delete_key(project.id, key.id)
    assert store.find_key(key.id) is None
    assert store.signing_key(project.id) is None
    again = IdentityStore(tmp_path / "identity.db")
    await again.open()
    assert again.find_key(key.id) is None


async def test_rooms_are_their_projects_own(store: IdentityStore) -> None:
    room = await store.create_room("p", "r", metadata="{}", if_not_exists=False)
    other = await store.create_room("q", "r", metadata="{}", if_not_exists=False)
    assert room.id != other.id
    with pytest.raises(AlreadyExistsError):
        await store.create_room("p", "r", metadata="{}", if_not_exists=False)
    assert await store.create_room("p", "r", metadata='{"new": 1}', if_not_exists=True) == room
    assert await store.find_room("p", "r") == room
    assert await store.find_room("p", "x") is None
    with pytest.raises(NotFoundError):
        await store.delete_room("p", other.id)
    assert await store.delete_room("p", room.id) == room
    assert await store.rooms("p", limit=10, offset=0) == []
    assert await store.rooms("q", limit=10, offset=0) == [other]
