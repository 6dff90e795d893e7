import asyncio
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshhost.cli.log_output import log_for_command, log_for_server
from meshhost.errors import SettingsError
from meshhost.guard import guarded
from meshhost.logs import JsonFormatter, LineFormatter, log_context


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("meshhost")
    before = list(root.handlers), root.level, ours.level
    # Not pytest's: they would be closed.
    root.handlers = []
    yield
    root.handlers, root.level = before[0], before[1]
    ours.setLevel(before[2])


def _line(formatter: LineFormatter, text: str, *, error: BaseException | None = None, **fields: object) -> str:
    info = None if error is None else (type(error), error, None)
    record = logging.getLogger("x").makeRecord("x", logging.WARNING, "f", 1, text, (), info, extra=fields)
    return formatter.format(record)


def test_a_record_is_one_line_with_its_fields() -> None:
    line = _line(LineFormatter(is_coloured=False, tracebacks=False), "a\nb", room="demo", reason="two words", empty="")

    assert line.partition(" ")[2] == 'WARNING x: a\\nb room=demo reason="two words" empty=""'


def test_colour_is_for_terminals() -> None:
    assert "\x1b[33m" in _line(LineFormatter(is_coloured=True, tracebacks=False), "text")


def test_an_error_is_a_field_or_a_traceback() -> None:
    short = _line(LineFormatter(is_coloured=False, tracebacks=False), "failed", error=ValueError("x"))
    full = _line(LineFormatter(is_coloured=False, tracebacks=True), "failed", error=ValueError("x"))

    assert short.endswith('failed error="ValueError: x"')
    assert full.endswith('failed error="ValueError: x"\n  ValueError: x')


def test_a_tenant_is_shown_by_its_name_and_a_host_agent_once() -> None:
    fields = {"tenant": "e63405ce", "room": "r", "identity": "w", "agent": "w in r", "spawn_id": "a96a8afa4ae9467390d2"}
    formatter = LineFormatter(is_coloured=False, tracebacks=False)

    assert _line(formatter, "done", **fields).endswith("x: done tenant=e63405ce room=r identity=w spawn_id=a96a8afa")
    named = _line(formatter, "done", tenant="e63405ce", room="r", tenant_name="acme")
    assert named.endswith("x: done tenant=acme room=r")


def test_a_traceback_begins_at_the_code_that_is_not_ours() -> None:
    async def program() -> None:
        raise KeyError("to")

    async def run() -> list[BaseException | None]:
        return await asyncio.gather(guarded(program()), return_exceptions=True)

    [error] = asyncio.run(run())
    assert error is not None
    line = _line(LineFormatter(is_coloured=False, tracebacks=True), "failed", error=error)

    assert "meshhost/guard.py" in "".join(traceback.format_exception(error))
    assert "in program" in line
    assert "meshhost/guard.py" not in line


def test_a_record_in_json_is_an_object_with_all_of_its_fields() -> None:
    try:
        raise KeyError("to")
    except KeyError as error:
        text = _line(JsonFormatter(), "took\nit", error=error, tenant="e63405ce", tenant_name="acme", path=Path("/x"))
    content = json.loads(text)

    assert "\n" not in text
    assert content["time"].endswith("+00:00")
    assert "in test_a_record_in_json" in content.pop("traceback")
    del content["time"]
    assert content == {
        "level": "WARNING",
        "logger": "x",
        "message": "took\nit",
        "tenant": "e63405ce",
        "tenant_name": "acme",
        "path": "/x",
        "error": "KeyError: 'to'",
    }


def test_a_server_logs_json_by_a_setting(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("MESHHOST_LOG_FORMAT", "json")
    log_for_server()

    with log_context(room="demo"):
        logging.getLogger("meshhost.x").info("seen")

    assert json.loads(capsys.readouterr().err)["room"] == "demo"


def test_a_server_logs_at_its_level_with_its_context(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("MESHHOST_LOG_LEVEL", "debug")
    log_for_server()

    with log_context(room="demo"):
        logging.getLogger("meshhost.x").debug("seen")
        logging.getLogger("openai").debug("payload")

    said = capsys.readouterr().err
    assert "seen room=demo" in said
    assert "payload" not in said


def test_commands_are_quiet_unless_told(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log_for_command()
    logging.getLogger("meshhost.x").info("quiet")
    environment.setenv("MESHHOST_LOG_LEVEL", "INFO")
    log_for_command()
    logging.getLogger("meshhost.x").info("told")

    said = capsys.readouterr().err
    assert "told" in said
    assert "quiet" not in said


def test_a_wrong_level_is_a_wrong_setting(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MESHHOST_LOG_LEVEL", "loud")

    with pytest.raises(SettingsError, match="MESHHOST_LOG_LEVEL"):
        log_for_server()
