"""Writes the parts of `docs/` that come from the code: reference pages, OpenAPI documents and pictures.

`python -m docs.generate` writes them, `--check` compares and exits with 1 when the committed files differ (`make
docs-reference` and `tests/unit/test_docs.py`). Each module here makes the files of one subject and returns them as a mapping
of paths below `docs/` to texts; nothing but `__main__` writes. The code under `meshhost/` never imports this package.

Where the code has a name but no sentence for the reader (what a setting is for, what to do about an error), the sentence
is in a table of the module, and the module refuses to run when the table and the code do not name the same things.
"""
