"""Records that are logged while a message is worked on become lines of it, and nothing else about logging changes."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from meshhost.logs import ContextFilter, log_context
from meshhost.work_log import recording
from meshhost.work_log.line import MAX_FIELDS, MAX_LINE_TEXT, Line, Worked
from meshhost.work_log.recording import is_reported, logging_work, reported_elsewhere

OF = Worked("jobs", "7", 2)
logger = logging.getLogger("my_program")


class Lines:
    def __init__(self) -> None:
        self.taken: list[Line] = []

    def may_add(self) -> bool:
        return True

    def add(self, line: Line) -> None:
        self.taken.append(line)

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.taken]


@pytest.fixture(autouse=True)
def program() -> Iterator[None]:
    """A program that logs from DEBUG on."""
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(logging.NOTSET)
    logging.getLogger().removeHandler(recording.handler)


def test_only_what_is_logged_inside_becomes_a_line_from_info_on() -> None:
    lines = Lines()
    logger.info("before")
    with logging_work(OF, lines):
        assert is_reported()
        logger.debug("too fine")
        logger.info("wrote %d files", 3, extra={"city": "Oslo", "queue": "another"})
    logger.info("after")
    [line] = lines.taken
    assert (line.text, line.level, line.logger, line.of) == ("wrote 3 files", "INFO", "my_program", OF)
    assert dict(line.fields) == {"city": "Oslo"}
    assert line.as_json()["message_id"] == "7"
    assert not is_reported()


def test_what_all_records_of_an_agent_say_is_no_field_of_a_line() -> None:
    lines = Lines()
    with log_context(tenant="acme", path="/a", spawn_id="x"), logging_work(OF, lines):
        logger.info("one")
        logger.info("two", extra={"path": "/b"})
    assert [dict(line.fields) for line in lines.taken] == [{}, {"path": "/b"}]


def test_every_record_of_the_work_names_its_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(ContextFilter())
    with logging_work(OF, None):
        assert not is_reported()
        logger.info("said")
    [record] = caplog.records
    assert (record.queue, record.message_id, record.attempt) == ("jobs", "7", 2)  # type: ignore[attr-defined]


async def test_tasks_and_threads_of_the_work_belong_to_it_and_others_do_not() -> None:
    one, two = Lines(), Lines()

    async def work(lines: Lines, name: str) -> None:
        with logging_work(OF, lines):
            await asyncio.to_thread(logger.info, name)
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(logger.info, f"{name} further"))
            stranger = threading.Thread(target=logger.info, args=("no context",))
            stranger.start()
            stranger.join()

    await asyncio.gather(work(one, "a"), work(two, "b"))
    assert (one.texts, two.texts) == (["a", "a further"], ["b", "b further"])


def test_a_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest captures goes into its report, and pytest-xdist cannot send one with a lone surrogate in it.
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    lines = Lines()
    many = {f"f{number}": number for number in range(100)}
    odd = {"long": "x" * 999, "number": 2**60, "nan": float("nan"), "list": [1], "none": None, "fit": 1.5}
    with logging_work(OF, lines):
        logger.critical("%s\ud800", "x" * 5_000, extra=many)
        logger.info("odd\ud800", extra=odd)
        try:
            raise ValueError("deep" + "!" * 5_000)
        except ValueError:
            logger.exception("failed")
        logger.log(999, "beyond")
    long, strange, failed, beyond = lines.taken
    assert (len(long.text), len(long.fields), long.level) == (MAX_LINE_TEXT, MAX_FIELDS, "CRITICAL")
    assert strange.text == "odd?"
    assert dict(strange.fields) == {
        "long": "x" * 300,
        "number": str(2**60),
        "nan": "nan",
        "list": "[1]",
        "none": None,
        "fit": 1.5,
    }
    assert (len(str(failed.fields["traceback"])), failed.level) == (1_500, "ERROR")
    assert beyond.level == "CRITICAL"


def test_a_sink_that_fails_does_not_make_the_code_fail_that_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def add(self, line: Line) -> None:
            raise OSError("full")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    with logging_work(OF, Broken()):
        logger.info("said")


def test_a_program_that_has_not_configured_logging_can_still_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with logging_work(OF, Lines()):
        pass
    assert root.handlers == []
    lines = Lines()
    root.handlers.append(logging.NullHandler())
    for _ in range(2):
        with logging_work(OF, lines):
            logger.warning("said")
    assert lines.texts == ["said", "said"]
    assert len(root.handlers) == 2


def test_what_another_process_reported_is_not_given_on() -> None:
    lines = Lines()
    with logging_work(OF, lines), reported_elsewhere():
        assert is_reported()
        logger.info("said")
    assert lines.taken == []
