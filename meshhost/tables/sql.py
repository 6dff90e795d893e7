"""Filters and expressions in SQL as clients write them, made ready for LanceDB.

Clients of MeshAgent's SDK turn `where={"id": "x"}` into `id = "x"`: a JSON text in double quotes, which to most dialects of
SQL is the name of a column. Here a text in double quotes is always a text; the name of a column may stand in backticks.
`prepare` rewrites it to single quotes, and bounds what it takes: the length, and the depth of brackets, which the parser
descends into. What an expression may ask for is bounded where it runs. Pure: no I/O.
"""

import json
import re

from meshhost.errors import InvalidRequestError

__all__ = ["MAX_SQL_CHARS", "prepare", "text_literal"]

MAX_SQL_CHARS = 16 * 1024
_MAX_DEPTH = 40
# Texts in single quotes, names in backticks, texts in double quotes as JSON or SQL writes them, brackets, comments.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|`[^`]*`|"(?:[^"\\]|\\.|"")*"|[()\[\]]|--|/\*|['"`]""", re.DOTALL)


def prepare(sql: str, field: str) -> str:
    """Return the expression with each text in single quotes. Raises InvalidRequestError that names the field."""
    if not sql.strip():
        raise InvalidRequestError(field, "expected an expression in SQL, such as n > 3")
    if len(sql) > MAX_SQL_CHARS:
        raise InvalidRequestError(field, f"expected at most {MAX_SQL_CHARS} characters")
    if "\x00" in sql:
        raise InvalidRequestError(field, "expected no NUL character")
    depth, pieces, end = 0, [], 0
    for match in _TOKEN.finditer(sql):
        pieces += [sql[end : match.start()], _rewritten(match[0], field)]
        end = match.end()
        depth += (match[0] in "([") - (match[0] in ")]")
        if depth > _MAX_DEPTH:
            raise InvalidRequestError(field, f"expected brackets at most {_MAX_DEPTH} deep")
    return "".join([*pieces, sql[end:]])


def _rewritten(part: str, field: str) -> str:
    """Return a part of an expression that `_TOKEN` found."""
    if part in {"--", "/*"}:
        raise InvalidRequestError(field, "expected no comments")
    if part in {"'", '"', "`"}:
        raise InvalidRequestError(field, f"expected a closing {part}")
    return text_literal(_text_of(part)) if part[0] == '"' else part


def text_literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _text_of(token: str) -> str:
    try:
        text = json.loads(token, strict=False)
    except ValueError:  # as SQL would write it
        return token[1:-1].replace('""', '"')
    assert isinstance(text, str)
    return text
