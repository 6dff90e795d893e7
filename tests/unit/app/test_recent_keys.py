"""The keys of the local project, as a room server asks for them at each unknown key."""

from pathlib import Path

import pytest

from meshhost.app import project
from meshhost.app.project import RecentKeys, set_up_project
from meshhost.settings import read_settings
from meshhost.testing.clock import FakeClock


@pytest.fixture(autouse=True)
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("MESHHOST_API_KEY", raising=False)


def test_many_unknown_keys_cost_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    readings, known_keys = [], project.known_keys
    monkeypatch.setattr(project, "known_keys", lambda settings: readings.append(1) or known_keys(settings))
    clock = FakeClock()
    keys = RecentKeys(clock=clock)
    for _ in range(1_000):
        assert keys() == []
    assert len(readings) == 1


async def test_a_new_key_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = RecentKeys(clock=FakeClock())
    assert keys() == []
    made, _ = set_up_project(read_settings())
    assert [key.project_id for key in keys()] == [made.project_id]


def test_a_key_in_the_environment_is_found_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, _ = set_up_project(read_settings())
    (tmp_path / "project.json").unlink()
    keys = RecentKeys(seconds=0.0)
    assert keys() == []
    monkeypatch.setenv("MESHHOST_API_KEY", made.api_key.get_secret_value())
    assert len(keys()) == 1
