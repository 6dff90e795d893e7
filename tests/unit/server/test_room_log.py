"""The ring of lines about rooms: what is kept, for how long, and what is found in it."""

import json
import logging

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.logs import log_context
from meshhost.server.studio.room_log import RoomLog
from meshhost.work_log.line import Worked
from meshhost.work_log.recording import reported_elsewhere

DEN, CAVE = RoomKey(TenantId("acme"), "den"), RoomKey(TenantId("acme"), "cave")
logger = logging.getLogger("meshhost.server.test_room_log")


def texts(log: RoomLog, room: RoomKey = DEN, after: int = 0, **wanted: object) -> list[str]:
    lines, _ = log.after(room, after, limit=100, **wanted)  # type: ignore[arg-type]
    return [line["text"] for line in lines]


def test_records_about_a_room_are_kept_with_who_logged_them() -> None:
    log = RoomLog()
    logger.setLevel(logging.INFO)
    with log.attached(), log_context(tenant="acme", room="den", identity="poet"):
        logger.info("joined", extra={"role": "agent"})
        logger.debug("too fine")
    with log.attached():
        logger.info("of no room")
    logger.info("after it", extra={"tenant": "acme", "room": "den"})
    [line], last = log.after(DEN, 0, limit=10)
    assert (line["text"], line["agent"], line["level"], line["fields"]) == ("joined", "poet", "INFO", {"role": "agent"})
    assert last == line["n"] == 1


def test_a_room_has_its_last_lines_and_the_last_rooms_have_theirs() -> None:
    log = RoomLog(most_lines=2, most_rooms=1)
    for text in ("a", "b", "c"):
        log.keep(DEN, 0.0, logging.INFO, "", text, {})
    assert texts(log) == ["b", "c"]
    log.keep(CAVE, 0.0, logging.INFO, "", "d", {})
    assert (texts(log), texts(log, CAVE)) == ([], ["d"])


def test_a_tenant_with_many_rooms_does_not_push_out_the_lines_of_another() -> None:
    log = RoomLog(most_rooms=3)
    theirs = RoomKey(TenantId("rival"), "den")
    log.keep(theirs, 0.0, logging.INFO, "", "theirs", {})
    for number in range(10):
        log.keep(RoomKey(TenantId("acme"), f"r{number}"), 0.0, logging.INFO, "", str(number), {})
    assert texts(log, theirs) == ["theirs"]
    assert [texts(log, RoomKey(TenantId("acme"), f"r{number}")) for number in (7, 8, 9)] == [[], ["8"], ["9"]]


def test_all_lines_together_are_bounded_and_who_has_most_gives_away_its_oldest() -> None:
    log = RoomLog(most_bytes=20_000)
    theirs = RoomKey(TenantId("rival"), "den")
    log.keep(theirs, 0.0, logging.INFO, "", "theirs", {})
    log.keep(CAVE, 0.0, logging.INFO, "", "before the flood", {})
    for number in range(50):
        log.keep(DEN, 0.0, logging.INFO, "", f"{number} {'x' * 900}", {}, Worked("jobs", "1", 1))
    assert texts(log, theirs) == ["theirs"]
    assert texts(log, CAVE) == []
    left = texts(log)
    assert 5 < len(left) < 20
    assert left[-1].startswith("49 ")
    log.keep(DEN, 0.0, logging.INFO, "", "last", {"deep": [[] for _ in range(600)]})
    assert texts(log)[-1] == "last"
    log.forget(DEN, until=1.0)
    assert texts(log) == []


def test_a_line_with_a_clock_that_is_wrong_is_forgotten_with_its_room() -> None:
    log = RoomLog()
    log.keep(DEN, 2.0**40, logging.INFO, "poet", "from the future", {}, Worked("jobs", "1", 1), kept_at=1.0)
    log.keep(DEN, 1.0, logging.INFO, "poet", "after it", {}, Worked("jobs", "1", 1), kept_at=1.0)
    log.keep(DEN, 0.0, logging.INFO, "poet", "from the past", {}, Worked("jobs", "1", 1), kept_at=3.0)
    log.forget(DEN, until=2.0)
    assert texts(log) == ["from the past"]


def test_lines_of_before_a_deletion_are_forgotten() -> None:
    log = RoomLog()
    log.keep(DEN, 1.0, logging.INFO, "", "before", {})
    log.keep(DEN, 3.0, logging.INFO, "", "since", {})
    log.keep(CAVE, 1.0, logging.INFO, "", "elsewhere", {})
    log.forget(DEN, until=2.0)
    assert (texts(log), texts(log, CAVE)) == (["since"], ["elsewhere"])


def test_lines_are_found_by_number_level_agent_and_text() -> None:
    log = RoomLog()
    log.keep(DEN, 0.0, logging.INFO, "poet", "Began", {})
    log.keep(DEN, 1.0, logging.ERROR, "critic", "failed", {"why": "Out of Ink"})
    assert texts(log, after=1) == ["failed"]
    assert texts(log, after=2) == []
    assert texts(log, after=99) == ["Began", "failed"], "numbers begin again with the server"
    assert texts(log, level=logging.WARNING) == ["failed"]
    assert texts(log, agent="poet") == ["Began"]
    assert texts(log, text="began") == ["Began"]
    assert texts(log, text="ink") == ["failed"]


def test_lines_are_bounded_and_always_json() -> None:
    log = RoomLog()
    log.keep(DEN, 0.0, logging.INFO, "a" * 300, "x" * 3000, {"long": "y" * 3000})
    log.keep(DEN, 0.0, logging.INFO, "", "t", {"what": DEN.__class__, "n": 1})
    lines, _ = log.after(DEN, 0, limit=10)
    assert (len(lines[0]["agent"]), len(lines[0]["text"]), list(lines[0]["fields"])) == (200, 2000, ["cut"])
    assert lines[1]["fields"]["n"] == 1
    log.keep(DEN, 0.0, logging.INFO, "", "t", {"far": [float("inf")]})
    lines, _ = log.after(DEN, 2, limit=10)
    assert json.dumps(lines[0]["fields"], allow_nan=False) == '{"far": ["Infinity"]}'


def test_a_record_that_can_not_be_kept_does_not_fail_its_logger() -> None:
    class Quiet(RoomLog):
        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
            failed.append(record)

    class Bad:
        def __str__(self) -> str:
            raise ValueError

    failed: list[logging.LogRecord] = []
    log = Quiet()
    record = logging.LogRecord("meshhost", logging.INFO, "", 0, "bad %s", (Bad(),), None)
    record.tenant, record.room = "acme", "den"
    log.emit(record)
    assert failed == [record]
    assert texts(log) == []


def test_lines_of_work_are_kept_apart_and_found_by_queue_and_message() -> None:
    log = RoomLog(most_lines=2, most_of_work=3)
    log.keep(DEN, 0.0, logging.INFO, "poet", "joined", {})
    for number in range(5):
        of = Worked("jobs", str(number % 2), 1)
        log.keep(DEN, 1.0, logging.INFO, "poet", f"line {number}", {}, of)
    log.keep(DEN, 2.0, logging.INFO, "poet", "left", {})
    assert texts(log) == ["joined", "line 2", "line 3", "line 4", "left"]
    assert texts(log, message="0") == ["line 2", "line 4"]
    assert texts(log, message="0", after=4) == ["line 4"]
    assert texts(log, queue="jobs", message="1") == ["line 3"]
    assert texts(log, queue="others", message="1") == []
    log.forget(DEN, until=1.5)
    assert texts(log) == ["left"]


def test_a_record_that_comes_as_a_line_of_work_is_not_kept_twice() -> None:
    log = RoomLog()
    logger.setLevel(logging.INFO)
    with log.attached(), log_context(tenant="acme", room="den", identity="poet"):
        with reported_elsewhere():
            logger.info("of the work")
        logger.info("beside it")
    assert texts(log) == ["beside it"]
