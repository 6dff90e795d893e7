"""Models behind OpenAI's Responses and chat completions APIs, as LLMAdapters for agents.

The only package that imports `openai`, whose client works with 2.x and 3.x. An agent talks to the room's gateway by default
(`proxy.py`), so it needs no provider key of its own. `meshhost.anthropic` beside it is built on the same parts.
"""

from meshhost.openai.tools import (
    OpenAICompletionsAdapter,
    OpenAICompletionsToolResponseAdapter,
    OpenAIResponsesAdapter,
    OpenAIResponsesToolResponseAdapter,
)

__all__ = [
    "OpenAICompletionsAdapter",
    "OpenAICompletionsToolResponseAdapter",
    "OpenAIResponsesAdapter",
    "OpenAIResponsesToolResponseAdapter",
]
