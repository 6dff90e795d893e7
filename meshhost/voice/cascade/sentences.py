"""The text of a model as it grows, cut into sentences that can be spoken, and made speakable.

A voice begins with the first sentence while the model writes the second. `SentenceFeed` is fed with pieces of any length and
returns the sentences that are complete. `speakable` takes out what is only for the eye: marks of Markdown, code, addresses.
"""

import re

__all__ = ["SentenceFeed", "speakable"]

# A sentence ends with one of these and a space, or with a line. A shorter one is spoken with the next.
_END = re.compile(r"""(?<=[.!?…])\s+|(?<=[.!?…]["')\]])\s+|\n+""")
_MIN_CHARS = 8
# A text without an end is cut at a comma or space before this length: nothing of it is heard until it is complete.
_MAX_CHARS = 240
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_ADDRESS = re.compile(r"https?://(?:www\.)?([^\s/)]+)\S*")
_MARKS = re.compile(r"(?m)^\s{0,3}(?:#{1,6}|>|[-*+]|\d+[.)])\s+|[*`~|]+|(?<!\w)_+|_+(?!\w)")
_WORD = re.compile(r"\w")


class SentenceFeed:
    """Cuts a growing text into sentences."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = ""

    def __repr__(self) -> str:
        return f"<SentenceFeed rest={len(self._rest)}>"

    def feed(self, text: str) -> list[str]:
        """Add text; return the sentences that it completes."""
        self._rest += text
        sentences, begin = [], 0
        for end in _END.finditer(self._rest):
            if len(self._rest[begin : end.start()].strip()) >= _MIN_CHARS:
                sentences.append(self._rest[begin : end.start()].strip())
                begin = end.end()
        self._rest = self._rest[begin:]
        while len(self._rest) > _MAX_CHARS:
            cut = max(self._rest.rfind(", ", _MAX_CHARS // 2, _MAX_CHARS) + 1, 0)
            cut = cut or self._rest.rfind(" ", 1, _MAX_CHARS)
            cut = cut if cut > 0 else _MAX_CHARS
            sentences.append(self._rest[:cut].strip())
            self._rest = self._rest[cut:].lstrip()
        return [sentence for sentence in sentences if sentence]

    def flush(self) -> list[str]:
        """Return the rest as a sentence, if there is any; the feed is empty then."""
        rest, self._rest = self._rest.strip(), ""
        return [rest] if rest else []


def speakable(text: str) -> str:
    """Return what is said for a text: "" when it has no word."""
    said = _MARKS.sub("", _ADDRESS.sub(r"\1", _LINK.sub(r"\1", text)))
    return " ".join(said.split()) if _WORD.search(said) else ""
