"""The dialect of MeshAgent SDK 0.30 to 0.56, in Python and JavaScript.

These clients call everything of a room that the server itself offers a tool of a built-in toolkit: one request type, whose
arguments name toolkit and tool, stands for all of the operations. What is long is a stream of chunks beside the request.
`names.py` has the tables, `contents.py` the shapes of arguments, answers and chunks, `translator.py` what is translated message
by message, `streams.py` and `calls.py` the requests that need more than a translation, and `dialect.py` the whole.
"""

from meshhost.server.wire.sdk056.dialect import SDK_056, Sdk056

__all__ = ["SDK_056", "Sdk056"]
