"""The Responses adapter: `responses_adapter.py` is the front, `exchange.py` the loop of turns and tool calls, `stream.py` one
request, `retry.py` what to try again, `tool_bundle.py` tools as the model sees them, `tool_response.py` their answers.
"""

from meshhost.openai.tools.responses_adapter import OpenAIResponsesAdapter
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter

__all__ = ["OpenAIResponsesAdapter", "OpenAIResponsesToolResponseAdapter"]
