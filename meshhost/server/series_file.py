"""Keeps the series of points about queues in a file, so that they go on after a restart.

`RoomServer` reads the file when it starts, saves it every five minutes and when it stops; after a crash the points since the
last time are missing. When a tenant or a room was deleted it is saved within seconds, so that nothing of them stays. The file
is a convenience: one that cannot be read or written is logged, and nothing else depends on it. Writing happens in a thread;
the file is replaced as a whole.
"""

import asyncio
import json
import logging
import os
import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

from meshhost.clock import Clock, SystemClock
from meshhost.queues.activity.series import QueueSeries, SavedSeries
from meshhost.tasks import uninterrupted

__all__ = ["SeriesFile"]

logger = logging.getLogger(__name__)

_VERSION = 1
_LOOK_SECONDS, _SAVE_SECONDS = 10.0, 300.0


class SeriesFile:
    """The series in the file `path`; None: they are not saved."""

    def __init__(self, series: QueueSeries, path: Path | None, *, clock: Clock | None = None) -> None:
        self._series = series
        self._path = path
        self._clock = clock or SystemClock()
        self._is_loaded = False

    async def load(self) -> None:
        """Begin with what is in the file."""
        if self._path is None:
            return
        self._is_loaded = True
        try:
            self._series.restore(await asyncio.to_thread(_read, self._path))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, struct.error) as error:
            logger.warning("the series of queues begin anew", extra={"path": str(self._path)}, exc_info=error)

    async def save(self) -> None:
        """Replace the file, if it was read before."""
        if self._path is None or not self._is_loaded:
            return
        try:
            # A thread goes on when its caller is cancelled, and the server saves once more when it stops.
            await uninterrupted(asyncio.to_thread(_write, self._path, self._series.save()))
        except OSError as error:
            self._series.has_forgotten = True
            logger.warning("the series of queues are not saved", extra={"path": str(self._path)}, exc_info=error)

    async def run(self) -> None:
        """Save now and then, until cancelled."""
        save_at = self._clock.monotonic() + _SAVE_SECONDS
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            if self._series.has_forgotten or self._clock.monotonic() >= save_at:
                save_at = self._clock.monotonic() + _SAVE_SECONDS
                await self.save()


def _read(path: Path) -> list[SavedSeries]:
    found = json.loads(path.read_bytes())
    if found["version"] != _VERSION:
        raise ValueError(f"expected version {_VERSION}, got {found['version']!r}")
    return [
        SavedSeries(each["tenant"], each["room"], each["queue"], b64decode(each["fine"]), b64decode(each["coarse"]))
        for each in found["series"]
    ]


def _write(path: Path, saved: Sequence[SavedSeries]) -> None:
    series = [
        {**each._asdict(), "fine": b64encode(each.fine).decode(), "coarse": b64encode(each.coarse).decode()}
        for each in saved
    ]
    beside = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"version": _VERSION, "series": series}, file)
    beside.replace(path)
