"""The program of a conversion's process: a document on stdin, its Markdown on stdout.

It bounds itself before it reads anything: memory, CPU time, and no file may be written. It is started by `converting.py` with
an environment without secrets, and killed by it when it takes too long. Exit codes: 0 done, UNREADABLE with one line on stderr
that says why, MISSING when the package is not installed; any other is a crash, as of a parser that used up its memory.
"""

import argparse
import io
import os
import resource
import sys

__all__ = ["MISSING", "UNREADABLE"]

UNREADABLE = 3
MISSING = 4


def main() -> int:
    """Convert stdin to stdout. Returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--extension", required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--cpu-seconds", type=int, required=True)
    options = parser.parse_args()
    for limit, value in (
        (resource.RLIMIT_AS, options.memory_bytes),
        (resource.RLIMIT_CPU, options.cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    # Only the Markdown goes to stdout: parsers print what they think of a document.
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    data = sys.stdin.buffer.read()
    try:
        text = _convert(data, options.extension)
    except ImportError as error:
        return _say(f"{error}", MISSING)
    except Exception as error:  # noqa: BLE001 - a parser raises anything, and says only here what it met
        return _say(type(error).__name__, UNREADABLE)
    with os.fdopen(out, "wb") as stdout:
        stdout.write(text.encode(errors="replace"))
    return 0


def _convert(data: bytes, extension: str) -> str:
    from markitdown import MarkItDown, StreamInfo

    converter = MarkItDown(enable_plugins=False)
    result = converter.convert_stream(io.BytesIO(data), stream_info=StreamInfo(extension=extension))
    return str(result.text_content)


def _say(why: str, code: int) -> int:
    sys.stderr.write(f"\n{why.splitlines()[0] if why else 'it could not be read'}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
