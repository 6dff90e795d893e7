import logging
from collections.abc import Iterator

import pytest

from meshhost.cli.log_output import log_for_command, log_for_server
from meshhost.errors import SettingsError
from meshhost.logs import LineFormatter, log_context


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

    assert short.endswith("failed error=ValueError")
    assert full.endswith("\nValueError: x")


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
