"""The fenced blocks of a page, with the marks that say how a test runs them.

A mark is a comment in the page, which readers do not see: `<!-- test: WHAT -->`. Before a block it says how that block is run;
alone, it is a step of its own. What may be said is in `Step`. Blocks that are indented inside a list are found too.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_STEP = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^(?P=indent)```$"
    r"|^<!-- test: (?P<mark>[^>]*) -->$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """A block, or a mark that stands alone (then `language` is ""). `mark` is one of:

    - "not run: REASON"
    - 'keeps running until "LINE"': the last command of the block goes on while the next blocks run
    - "stop COMMAND": Ctrl-C for the command that begins so
    - 'wait until "LINE"': of a command that runs
    - "without Docker" (and "keeps running …"): `docker run` becomes the command of the image, with its environment
    """

    language: str
    text: str
    title: str = ""
    mark: str = ""

    @property
    def reason(self) -> str | None:
        """Why the block is not run; None when it is."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run") else None


def steps_of(page: Path) -> list[Step]:
    """Blocks and lone marks of the page, in order."""
    return list(_steps(page.read_text()))


def steps_under(page: Path, heading: str) -> list[Step]:
    """Those of one section of the page: from this second-level heading to the next."""
    _, found, after = page.read_text().partition(f"\n## {heading}\n")
    assert found, f"{page} has no section {heading!r}"
    return list(_steps(after.partition("\n## ")[0]))


def _steps(text: str) -> Iterator[Step]:
    mark, end = "", 0
    for match in _STEP.finditer(text):
        # A mark belongs to the block that follows it without an empty line between.
        if mark and (match["mark"] is not None or text[end : match.start()] != "\n"):
            yield Step("", "", mark=mark)
            mark = ""
        if match["mark"] is not None:
            mark = match["mark"]
        else:
            yield Step(match["language"], textwrap.dedent(match["text"]), title=match["title"] or "", mark=mark)
            mark = ""
        end = match.end()
    if mark:
        yield Step("", "", mark=mark)


def commands_of(block: str) -> list[str]:
    """The commands of a shell block, continuation lines joined."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
