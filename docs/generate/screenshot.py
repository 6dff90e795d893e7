"""`make screenshots`: run `make demo` for real and draw what it printed as `docs/images/demo.svg`.

The demo runs in a terminal of its own (a pseudo-terminal), so that it prints as it does for a person. The picture is made by
rich, with fonts of the reader's machine instead of the ones that rich would load from elsewhere. `--from FILE` draws the
recorded output in FILE instead of running the demo, which takes minutes with the local model on a slow machine.
"""

import os
import pty
import re
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
COMMAND = "make demo"
_COLUMNS = 100
# Printed again and again while the demo waits; only the last is shown.
_WORKING = "… the model is "
# The demo's temporary directory, which has another name each time.
_TEMPORARY = re.compile(r"/[^ )]*/meshhost-demo-[^/]*/")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A log line of the programs that the demo runs.
_LOG_LINE = re.compile(r"\d\d:\d\d:\d\d +[A-Z]+ ")

# rich's own format without the @font-face rules, which name addresses.
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>What make demo prints</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run_demo() -> str:
    """The output of the demo."""
    output = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        output.extend(data)
        return data

    status = pty.spawn([sys.executable, str(ROOT / "agents" / "storage_worker" / "demo.py")], read)
    if status:
        raise SystemExit("the demo failed; no picture was made")
    return output.decode()


def shown(output: str) -> list[str]:
    """The lines as a terminal shows them in the end: of what was written over itself only the last, and no log lines."""
    text = _COLOUR.sub("", output).replace("\r\n", "\n")
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    lines = [_TEMPORARY.sub("/…/", line) for line in lines if not _LOG_LINE.match(line)]
    lines = [
        line
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if not (_WORKING in line and _WORKING in after)
    ]
    return "\n".join(lines).strip("\n").split("\n")


def draw(lines: list[str]) -> str:
    """The SVG of these lines below the command."""
    width = min(max(map(len, lines)) + 1, _COLUMNS)
    console = Console(record=True, width=width, file=StringIO(), color_system="truecolor", legacy_windows=False)
    console.print(Text.assemble(("$ ", "green"), (COMMAND, "bold")))
    for line in lines:
        console.print(Text(line, style="green" if line.lstrip().startswith("✓") else ""))
    return console.export_svg(title="meshhost", theme=MONOKAI, code_format=_FORMAT, unique_id="demo")


def main() -> None:
    """Write the picture."""
    recorded = Path(sys.argv[2]).read_bytes().decode() if sys.argv[1:2] == ["--from"] else run_demo()
    PICTURE.write_text(draw(shown(recorded)))
    sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
