"""The adapters for OpenAI's APIs. MeshAgent programs import them from `meshagent.openai.tools`.

`model_adapter.py` is what all adapters have in common; `responses_adapter.py` and `completions_adapter.py` are those of the two
APIs. `exchange.py` is the loop of turns and tool calls, `stream.py` one request, `retry.py` which failures are retried,
`tool_bundle.py` the tools as the model sees them, `hosted_tools.py` those that the provider runs, `tool_response.py` their
answers as the model reads them.
"""

from meshhost.openai.tools.completions_adapter import OpenAICompletionsAdapter, OpenAICompletionsToolResponseAdapter
from meshhost.openai.tools.hosted_tools import CodeInterpreterTool, HostedTool, ImageGenerationTool, WebSearchTool
from meshhost.openai.tools.responses_adapter import OpenAIResponsesAdapter
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter

__all__ = [
    "CodeInterpreterTool",
    "HostedTool",
    "ImageGenerationTool",
    "OpenAICompletionsAdapter",
    "OpenAICompletionsToolResponseAdapter",
    "OpenAIResponsesAdapter",
    "OpenAIResponsesToolResponseAdapter",
    "WebSearchTool",
]
