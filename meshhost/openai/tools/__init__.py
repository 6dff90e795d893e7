"""The Responses adapter. MeshAgent programs import it from `meshagent.openai.tools`.

`responses_adapter.py` is the LLMAdapter, `exchange.py` the loop of turns and tool calls, `stream.py` one request,
`retry.py` which failures are retried, `tool_bundle.py` the tools as the model sees them, `tool_response.py` their answers
as the model reads them.
"""

from meshhost.openai.tools.responses_adapter import OpenAIResponsesAdapter
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter

__all__ = ["OpenAIResponsesAdapter", "OpenAIResponsesToolResponseAdapter"]
