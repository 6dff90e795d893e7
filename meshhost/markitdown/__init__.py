"""PDFs and Office documents as Markdown, by the PyPI package `markitdown` (extra `markitdown`).

`tools/` has the toolkit that MeshAgent programs import. `converting.py` converts one document in a process of its own, with
bounds on time, memory and size, because the document comes from outside and its parsers are large; `converter.py` is the
program of that process, and the only module that imports `markitdown`.
"""
