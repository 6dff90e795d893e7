"""Log records say which agent they are about."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from meshhost.logs import (
    ContextFilter,
    LineFormatter,
    add_context_to_root_handlers,
    configure_logs,
    current_log_context,
    log_context,
)

logger = logging.getLogger("tests.logs")


class Collector(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def collected() -> Iterator[list[logging.LogRecord]]:
    handler = Collector()
    handler.addFilter(ContextFilter())
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


def test_a_record_carries_the_open_contexts_and_inner_ones_win(collected: list[logging.LogRecord]) -> None:
    with log_context(tenant="acme", room="lobby"), log_context(room="attic"):
        logger.warning("something happened")

    [record] = collected
    assert (record.__dict__["tenant"], record.__dict__["room"]) == ("acme", "attic")


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_requests_of_http_clients_are_for_those_who_debug(
    level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    names = ("httpx", "httpx2", "meshhost")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        configure_logs(level, is_json=False)
        shows = {name: logging.getLogger(name).isEnabledFor(logging.INFO) for name in ("httpx", "httpx2")}
    finally:
        for name, was in before.items():
            logging.getLogger(name).setLevel(was)
    assert set(shows.values()) == {level == logging.DEBUG}


def test_a_record_outside_has_no_fields_and_the_context_is_gone(collected: list[logging.LogRecord]) -> None:
    with log_context(tenant="acme"):
        pass
    logger.warning("something happened")

    assert not hasattr(collected[0], "tenant")
    assert dict(current_log_context()) == {}


def test_what_the_record_says_itself_is_kept(collected: list[logging.LogRecord]) -> None:
    with log_context(room="lobby"):
        logger.warning("something happened", extra={"room": "other"})

    assert collected[0].__dict__["room"] == "other"


async def test_tasks_started_inside_inherit_and_neighbours_do_not(collected: list[logging.LogRecord]) -> None:
    async def work(text: str) -> None:
        logger.warning(text)

    with log_context(room="lobby"):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work("inside"))
    await work("outside")

    assert [getattr(record, "room", None) for record in collected] == ["lobby", None]


def test_root_handlers_get_the_filter_once() -> None:
    handler = Collector()
    logging.getLogger().addHandler(handler)
    try:
        add_context_to_root_handlers()
        add_context_to_root_handlers()
    finally:
        logging.getLogger().removeHandler(handler)

    assert [type(present) for present in handler.filters] == [ContextFilter]


def test_the_text_of_an_error_neither_feigns_a_record_nor_orders_a_terminal_about() -> None:
    try:
        raise ValueError("x\n12:00:01 ERROR meshhost: all is lost\r\x1b[2J\u202e\x85 \ud800 \u00fc")
    except ValueError as error:
        record = logging.LogRecord("meshhost", logging.ERROR, "", 0, "failed", None, (ValueError, error, None))
    text = LineFormatter(is_coloured=False, tracebacks=True).format(record)
    first, *rest = text.split("\n")
    assert "failed" in first
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in rest)
    assert "\u00fc" in text
    assert all(character.isprintable() or character in "\n\t" for character in text)
