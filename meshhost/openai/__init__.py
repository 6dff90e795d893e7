"""Models that speak OpenAI's Responses API. The only package that imports `openai`."""

from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter

__all__ = ["OpenAIResponsesAdapter", "OpenAIResponsesToolResponseAdapter"]
