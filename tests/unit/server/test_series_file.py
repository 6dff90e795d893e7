"""Series of points about queues go on after a restart, and whatever is wrong with their file harms nothing else."""

import asyncio
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.activity.points import COARSE_SECONDS
from meshhost.queues.activity.series import QueueSeries
from meshhost.server import series_file
from meshhost.server.series_file import SeriesFile
from meshhost.stores.queues import QueueKey, QueueStats
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS = QueueKey(ROOM, "jobs")


async def stats(room: RoomKey) -> Sequence[QueueStats]:
    return [QueueStats("jobs", 3, 1, 0, 2, 7.5)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "series.json"


def write(path: Path, text: str) -> None:
    path.write_text(text)


def mode(path: Path) -> int:
    return path.stat().st_mode


def content(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


async def kept(path: Path | None, clock: FakeClock) -> tuple[QueueSeries, SeriesFile]:
    series = QueueSeries(stats, clock=clock)
    file = SeriesFile(series, path, clock=clock)
    await file.load()
    return series, file


async def fill(series: QueueSeries, clock: FakeClock, points: int = 100) -> None:
    for _ in range(points):
        series.sent(JOBS, 1)
        await series.sample()
        await clock.advance(10)


async def test_points_of_queues_rooms_and_tenants_go_on_after_a_restart(path: Path, clock: FakeClock) -> None:
    series, file = await kept(path, clock)
    await fill(series, clock)
    fine, coarse = await series.of_queue(JOBS), await series.of_queue(JOBS, COARSE_SECONDS)
    await file.save()
    assert mode(path) & 0o077 == 0
    again, _ = await kept(path, clock)
    assert await again.of_queue(JOBS) == fine
    assert await again.of_queue(JOBS, COARSE_SECONDS) == coarse
    assert await again.of_room(ROOM) == await series.of_room(ROOM)
    assert again.of_tenant(ROOM.tenant) == series.of_tenant(ROOM.tenant)
    await again.sample()
    assert [point.counts.sent for point in await again.of_queue(JOBS)][-2:] == [1, 0]


async def test_what_is_too_old_is_left_out(path: Path, clock: FakeClock) -> None:
    series, file = await kept(path, clock)
    await fill(series, clock)
    await file.save()
    await clock.advance(3600)
    again, _ = await kept(path, clock)
    assert again.of_tenant(ROOM.tenant) == []
    assert len(again.of_tenant(ROOM.tenant, COARSE_SECONDS)) > 10
    await clock.advance(24 * 3600)
    again, _ = await kept(path, clock)
    assert again.of_tenant(ROOM.tenant, COARSE_SECONDS) == []


async def test_no_more_is_taken_back_than_is_kept(path: Path, clock: FakeClock) -> None:
    series, file = await kept(path, clock)
    for tenant in ("acme", "other"):
        series.sent(QueueKey(RoomKey(TenantId(tenant), "lobby"), "jobs"), 1)
    await series.sample()
    await file.save()
    few = QueueSeries(stats, clock=clock, most_tenants=1)
    await SeriesFile(few, path, clock=clock).load()
    assert sorted(len(few.of_tenant(TenantId(tenant))) for tenant in ("acme", "other")) == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "series": []}',
        '{"version": 1}',
        '{"version": 1, "series": [{"tenant": "a", "room": null, "queue": null, "fine": "AAAA", "coarse": ""}]}',
    ],
)
async def test_a_file_that_cannot_be_read_is_logged_and_replaced(
    path: Path, clock: FakeClock, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, text)
    with caplog.at_level(logging.WARNING):
        series, file = await kept(path, clock)
    assert "begin anew" in caplog.text
    await fill(series, clock, 1)
    await file.save()
    assert len(json.loads(content(path) or "")["series"]) == 3


async def test_a_file_that_cannot_be_written_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    series, file = await kept(tmp_path / "missing" / "series.json", clock)
    series.has_forgotten = False
    with caplog.at_level(logging.WARNING):
        await file.save()
    assert "are not saved" in caplog.text
    assert series.has_forgotten  # it is tried again soon


async def test_nothing_is_written_without_a_file_or_before_it_was_read(path: Path, clock: FakeClock) -> None:
    _, file = await kept(None, clock)
    await file.save()
    await SeriesFile(QueueSeries(stats, clock=clock), path, clock=clock).save()
    assert content(path) is None


async def test_it_is_saved_now_and_then_and_soon_after_a_deletion(path: Path, clock: FakeClock) -> None:
    series, file = await kept(path, clock)
    saved = list[float]()

    async def save() -> None:
        saved.append(clock.time() - begin)
        series.has_forgotten = False

    file.save = save  # type: ignore[method-assign]
    begin, task = clock.time(), asyncio.create_task(file.run())
    await clock.advance(305)
    series.forget(ROOM.tenant)
    await clock.advance(300)
    task.cancel()
    assert saved == [300, 310]


async def test_a_save_that_is_under_way_at_the_end_is_finished_before_the_next_one(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file = await kept(path, clock)
    begun, go, at_once = threading.Event(), threading.Event(), threading.Semaphore(1)
    write_file = series_file._write

    def slow(*args: Any) -> None:
        assert at_once.acquire(blocking=False), "two write at once"
        begun.set()
        go.wait(5)
        write_file(*args)
        at_once.release()

    monkeypatch.setattr(series_file, "_write", slow)
    saving = asyncio.create_task(file.save())
    await asyncio.to_thread(begun.wait, 5)
    saving.cancel()
    asyncio.get_running_loop().call_soon(go.set)
    with pytest.raises(asyncio.CancelledError):
        await saving
    await file.save()
    assert content(path) is not None
