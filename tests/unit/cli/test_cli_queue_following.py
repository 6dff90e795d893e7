"""How `queue send --wait` shows a message on its way, at a terminal and elsewhere."""

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from meshhost.cli.commands.queue.following import result_of
from meshhost.errors import MessageFailedError
from meshhost.room.services.queues import MessageRecord


class Room:
    """A room whose message goes through these states, one after the other."""

    def __init__(self, *records: MessageRecord | None) -> None:
        self.queues, self._records = self, records

    async def wait(
        self, name: str, id: str, *, timeout: float | None, on_progress: Callable[[MessageRecord], None]
    ) -> MessageRecord | None:
        *before, last = self._records
        for record in before:
            assert record is not None
            on_progress(record)
        return last


def record(state: Any, **more: Any) -> MessageRecord:
    return MessageRecord(id="7", state=state, sent_at=0.0, **more)


async def follow(*records: MessageRecord | None) -> Any:
    room: Any = Room(*records)
    return await result_of(room, "q", "7", timeout=None, where="--queue q")


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (record("ready"), "ready"),
        (record("leased", by="worker-1"), "leased by worker-1"),
        (record("leased", progress=0.5), "leased: 50%"),
        (record("leased", progress=True), "leased: true"),
        (record("leased", progress="reading"), "leased: reading"),
        (record("leased", progress={"page": 3}), 'leased: {"page": 3}'),
        (record("leased", progress="x" * 99), "leased: " + "x" * 59 + "…"),
        (record("failed", failures=2), "failed, 2 attempts failed"),
        (record("leased", by="b", failures=1), "leased by b, 1 attempt failed"),
        (record("leased", is_cancelling=True), "being cancelled"),
    ],
)
async def test_each_change_is_a_line(seen: MessageRecord, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await follow(seen, record("done", result=[1])) == [1]
    assert capsys.readouterr() == ("", f"message 7: {line}\n")


async def test_at_a_terminal_one_line_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    await follow(record("leased", progress="[red]a\x1b[2Jb"), record("done"))
    assert "[red]a" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()


async def test_a_message_that_nothing_is_known_of_has_no_result() -> None:
    with pytest.raises(MessageFailedError, match="is not known any more"):
        await follow(None)
