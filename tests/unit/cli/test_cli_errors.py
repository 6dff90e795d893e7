import asyncio
import io
import sys

import pytest
import typer

from meshhost.cli.errors import FAILED, INTERRUPTED, USAGE, run_guarded
from meshhost.errors import NotFoundError, RequestTimeoutError, SettingsError


def _raise(error: BaseException) -> int:
    def command() -> None:
        raise error

    return run_guarded(command)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SettingsError("no key"), "no key"),
        (NotFoundError("a\nb\x1b[31m"), "a b[31m"),
        (RequestTimeoutError(), "RequestTimeoutError"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), "x.json: No such file or directory"),
        (OSError("strange"), "strange"),
        (TimeoutError(), "TimeoutError"),
        (ExceptionGroup("many", [ExceptionGroup("more", [SettingsError("first")]), ValueError()]), "first"),
        (typer.Abort(), "aborted"),
        (ValueError("x" * 500), f"unexpected ValueError ({'x' * 200}): set MESHHOST_LOG_LEVEL=DEBUG for the traceback"),
        (KeyError(), "unexpected KeyError: set MESHHOST_LOG_LEVEL=DEBUG for the traceback"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _raise(error) == FAILED
    assert capsys.readouterr().err == f"meshhost: {line}\n"


def test_an_unexpected_error_shows_its_traceback_at_debug(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("MESHHOST_LOG_LEVEL", "debug")

    assert _raise(ValueError("x")) == FAILED

    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("meshhost: unexpected ValueError")


def test_wrong_settings_do_not_hide_an_unexpected_error(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("MESHHOST_PORT", "many")

    assert _raise(ValueError("x")) == FAILED
    assert "unexpected ValueError" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert _raise(typer.BadParameter("expected a name", param_hint="--name")) == USAGE
    assert capsys.readouterr().err == "meshhost: Invalid value for --name: expected a name\n"


def test_ctrl_c_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert _raise(KeyboardInterrupt()) == INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1), SystemExit("text")])
def test_a_reader_that_left_is_no_news(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert _raise(error) == FAILED
    assert capsys.readouterr().err == ""


def test_a_stderr_that_is_gone_is_no_second_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())

    assert _raise(SettingsError("x")) == FAILED


def test_a_command_says_its_own_exit_code() -> None:
    assert run_guarded(lambda: 3) == 3
    assert run_guarded(lambda: asyncio.run(asyncio.sleep(0))) == 0
