"""Models behind Anthropic's Messages API, as an LLMAdapter for agents.

MeshAgent programs import these names from `meshagent.anthropic`. The adapter needs no library of Anthropic's: it asks through
the HTTP client that the OpenAI adapters use, and through the room's gateway by default, so that an agent needs no key of its
own. A program that has Anthropic's client passes it. `proxy.py` makes one for the room's gateway (extra `anthropic`).
"""

from meshhost.anthropic.messages_adapter import AnthropicMessagesAdapter, AnthropicMessagesToolResponseAdapter
from meshhost.anthropic.web_search import WebSearchTool

__all__ = ["AnthropicMessagesAdapter", "AnthropicMessagesToolResponseAdapter", "WebSearchTool"]
