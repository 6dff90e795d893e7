"""The parts of an engine live and die together."""

from dataclasses import replace

import pytest

from meshhost.errors import RoomError, SettingsError
from meshhost.stores.memory.engine import memory_engine


class Part:
    """Writes down what happens to it; fails as told."""

    def __init__(self, name: str, log: list[str], *, fails: str = "") -> None:
        self._name, self._log, self._fails = name, log, fails

    async def open(self) -> None:
        await self._do("open")

    async def close(self) -> None:
        await self._do("close")

    async def _do(self, what: str) -> None:
        self._log.append(f"{what} {self._name}")
        if self._fails == what:
            raise SettingsError(f"{what} {self._name} failed")


async def test_what_is_shared_outlives_the_stores() -> None:
    log: list[str] = []
    engine = replace(memory_engine(), shared=[Part("pool", log)])
    async with engine:
        assert await engine.identity.projects() == []
        assert log == ["open pool"]
    assert log == ["open pool", "close pool"]
    with pytest.raises(RoomError, match="not open"):
        await engine.identity.projects()
    await engine.close()


async def test_a_part_that_cannot_be_opened_closes_those_before_it() -> None:
    log: list[str] = []
    engine = replace(memory_engine(), shared=[Part("a", log), Part("b", log, fails="open"), Part("c", log)])
    with pytest.raises(SettingsError, match="open b failed"):
        await engine.open()
    assert log == ["open a", "open b", "close b", "close a"]


async def test_a_part_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    log: list[str] = []
    engine = replace(memory_engine(), shared=[Part("a", log), Part("b", log, fails="close")])
    await engine.open()
    with pytest.raises(SettingsError, match="close b failed"):
        await engine.close()
    assert log == ["open a", "open b", "close b", "close a"]
