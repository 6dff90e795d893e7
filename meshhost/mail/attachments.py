"""Names of attachments that are safe as names of files in a room's storage.

A sender may call an attachment anything: `../../etc/passwd`, a name of a thousand characters, one that shows as `gpj.exe`
because of a character that turns the text around. `safe_name` keeps what people recognise and drops the rest; `unique_names`
makes all names of one mail different. Pure.
"""

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["safe_name", "unique_names"]

_MOST_BYTES = 120
_MOST_EXTENSION = 20
# Separators of paths of any system, and what shells and browsers give a meaning.
_UNSAFE = re.compile(r"[/\\:*?\"<>|\x00-\x1f\x7f]+")
_DEFAULT = "attachment"


def safe_name(name: str | None, *, default: str = _DEFAULT) -> str:
    """Return a file name made of what the sender called an attachment; `default` when nothing is left of it."""
    text = unicodedata.normalize("NFC", (name or "").encode(errors="ignore").decode())
    # The last segment is the name; what precedes it is a path of the sender's machine, or an attack.
    text = re.split(r"[/\\]", text)[-1]
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"))
    text = re.sub(r"\s+", " ", _UNSAFE.sub("_", text)).strip(" .")
    return _shortened(text) or default


def unique_names(names: Iterable[str | None]) -> list[str]:
    """Return a safe name for each, all different without regard to case."""
    taken: set[str] = set()
    result = []
    for name in names:
        first = candidate = safe_name(name)
        number = 1
        while candidate.casefold() in taken:
            number += 1
            stem, dot, extension = first.rpartition(".")
            candidate = f"{stem}-{number}.{extension}" if dot and stem else f"{first}-{number}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def _shortened(name: str) -> str:
    if len(name.encode()) <= _MOST_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > _MOST_EXTENSION:
        stem, extension = name, ""
    ending = f".{extension}" if extension else ""
    cut = stem.encode()[: _MOST_BYTES - len(ending.encode())].decode(errors="ignore").rstrip(" .")
    return f"{cut}{ending}"
