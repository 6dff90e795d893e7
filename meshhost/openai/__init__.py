"""Models behind OpenAI's Responses API, as an LLMAdapter for agents.

The only package that imports `openai`, whose client works with 2.x and 3.x. An agent talks to the room's gateway by default
(`proxy.py`), so it needs no provider key of its own. Another API gets a package of its own beside this one.
"""

from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter

__all__ = ["OpenAIResponsesAdapter", "OpenAIResponsesToolResponseAdapter"]
