"""`LLMTaskRunner`: a task runner whose asks are answered by a model with tools.

It adds three things to TaskRunner: a default input schema (a `prompt`), the way arguments become a user message, and the
call of the LLMAdapter with the toolkits of the ask. Each ask is a conversation of its own.
"""

import json
from collections.abc import Sequence
from typing import Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentCallContext, AgentChatContext
from meshhost.agents.task_runner import NOTHING_SCHEMA, SchemaOrModel, TaskRunner
from meshhost.room.requirements import Requirement
from meshhost.tools.toolkit import Toolkit

__all__ = ["LLMTaskRunner"]

_PROMPT_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string", "description": "what to do"}},
}


class LLMTaskRunner(TaskRunner):
    """Lets the model answer asks: with a text, or with JSON that fits `output_schema`.

    Without an `input_schema` an ask has one argument, `prompt` (or none if `input_prompt` is false); with one, the model
    reads the arguments as JSON. `rules` tell the model how to behave.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        llm_adapter: LLMAdapter[Any],
        title: str | None = None,
        description: str | None = None,
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        requires: Sequence[Requirement] | None = None,
        supports_tools: bool = True,
        input_prompt: bool = True,
        input_schema: SchemaOrModel | None = None,
        output_schema: SchemaOrModel | None = None,
        rules: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        if input_schema is None:
            input_schema = _PROMPT_SCHEMA if input_prompt else NOTHING_SCHEMA
        super().__init__(
            name=name,
            title=title,
            description=description,
            requires=requires,
            supports_tools=supports_tools,
            input_schema=input_schema,
            output_schema=output_schema,
            labels=labels,
            toolkits=toolkits,
        )
        self._llm_adapter = llm_adapter
        self._tool_adapter = tool_adapter
        self._rules = list(rules or ())

    async def init_chat_context(self) -> AgentChatContext:
        """Return a conversation in the model adapter's form, with the rules."""
        context = self._llm_adapter.create_chat_context()
        if self._rules:
            context.append_rules(self._rules)
        return context

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """Let the model do the task. Raises LLMError when it fails."""
        context.chat.append_user_message(_as_text(arguments))
        rules = [rule for toolkit in context.toolkits for rule in toolkit.all_rules()]
        if rules:
            context.chat.append_rules(rules)
        return await self._llm_adapter.next(
            context=context.chat,
            room=context.room,
            toolkits=context.toolkits,
            tool_adapter=self._tool_adapter,
            output_schema=self.output_schema,
            on_behalf_of=context.on_behalf_of or context.caller,
        )


def _as_text(arguments: Any) -> str:
    value = arguments if isinstance(arguments, dict) else arguments.model_dump(mode="json")
    if set(value) == {"prompt"} and isinstance(value["prompt"], str):
        return str(value["prompt"])
    return json.dumps(value, ensure_ascii=False)
