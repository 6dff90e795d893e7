"""The one place where an error becomes one line on stderr and an exit code.

`run_guarded` runs every command. A user gets a traceback only for an unexpected error, and only with MESHHOST_LOG_LEVEL=DEBUG.
Exit codes: 1 for an error, 2 for wrong usage, 130 for an interrupt, as shells have it.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from meshhost.cli.output import one_line
from meshhost.errors import MeshhostError, SettingsError

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "run_guarded"]

FAILED = 1
USAGE = 2
INTERRUPTED = 130

_MAX_UNEXPECTED = 200


def run_guarded(command: Callable[[], object]) -> int:
    """Run the command and return the exit code: the command's own if it is a number, else 0; after an error 1, 2 or 130."""
    try:
        result = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return FAILED
    except SystemExit as error:  # how typer ends after a broken pipe
        _drop_output()
        return error.code if isinstance(error.code, int) else FAILED
    except Exception as error:  # noqa: BLE001 - the last place that can report it in one line
        return _report(_first(error))
    return result if isinstance(result, int) else 0


def _report(error: BaseException) -> int:
    text, code = _text_and_code(error)
    # The reader of stderr may be gone too.
    with contextlib.suppress(BrokenPipeError):
        print(f"meshhost: {one_line(text)}", file=sys.stderr, flush=True)
    return code


def _text_and_code(error: BaseException) -> tuple[str, int]:
    if hasattr(error, "format_message"):
        return _usage(error), int(getattr(error, "exit_code", USAGE))
    match error:
        case MeshhostError():
            return str(error) or type(error).__name__, FAILED
        case OSError():
            return _os_error(error), FAILED
        case _ if type(error).__name__ == "Abort":
            return "aborted", FAILED
        case _:
            return _unexpected(error), FAILED


def _usage(error: BaseException) -> str:
    # Recognised by its shape: typer brings its own copy of click since 0.20 or so, and click's before.
    context = getattr(error, "ctx", None)
    text = "expected a command" if type(error).__name__ == "NoArgsIsHelpError" else error.format_message()  # type: ignore[attr-defined]
    # A text that already ends with what to do needs no second hint.
    return (
        text if context is None or "`meshhost " in text else f"{text.rstrip('.')}: see `{context.command_path} --help`"
    )


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _unexpected(error: BaseException) -> str:
    kind = type(error).__name__
    if _wants_traceback():
        traceback.print_exception(error)
        return f"unexpected {kind}: please report it with the traceback above"
    text = one_line(str(error))[:_MAX_UNEXPECTED]
    return f"unexpected {kind}{f' ({text})' if text else ''}: set MESHHOST_LOG_LEVEL=DEBUG for the traceback"


def _wants_traceback() -> bool:
    from meshhost.client_settings import read_client_settings

    try:
        return read_client_settings().log_level.upper() == "DEBUG"
    except SettingsError:
        return False


def _first(error: BaseException) -> BaseException:
    """Return the error itself, or the first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _drop_output() -> None:
    # Discard what is still buffered: the interpreter would fail to flush it at exit and print an error.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
