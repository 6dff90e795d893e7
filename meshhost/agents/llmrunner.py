"""`LLMTaskRunner`: a task runner whose asks are answered by a model with tools.

It adds three things to TaskRunner: a default input schema (a `prompt`), the way arguments become a user message, and the
call of the LLMAdapter with the toolkits of the ask. Each ask is a conversation of its own. `DynamicLLMTaskRunner` answers in
the form that each ask brings along.
"""

import json
from collections.abc import Sequence
from typing import Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentCallContext, AgentChatContext
from meshhost.agents.task_runner import NOTHING_SCHEMA, SchemaOrModel, TaskRunner
from meshhost.errors import InvalidRequestError
from meshhost.room.requirements import Requirement
from meshhost.tools.builders import ToolkitBuilder, make_toolkits
from meshhost.tools.schema import Schema, check_schema
from meshhost.tools.toolkit import Toolkit

__all__ = ["DynamicLLMTaskRunner", "LLMTaskRunner"]

_PROMPT_SCHEMA: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string", "description": "what to do"}},
}
_OUTPUT_SCHEMA: Schema = {"type": "object", "description": "the JSON schema of the answer"}
# What an asker may choose besides, where the agent offers builders.
_CHOICES: Schema = {
    "model": {"type": ["string", "null"], "description": "the model that answers"},
    "tools": {
        "type": ["array", "null"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        "description": "toolkits by name, each with its configuration",
    },
}


class LLMTaskRunner(TaskRunner):
    """Lets the model answer asks: with a text, or with JSON that fits `output_schema`.

    Without an `input_schema` an ask has one argument, `prompt` (or none if `input_prompt` is false); with one, the model
    reads the arguments as JSON. `rules` tell the model how to behave. With `get_toolkit_builders` overridden, the asker may
    choose the `model` and `tools`.
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
            if type(self).get_toolkit_builders is not LLMTaskRunner.get_toolkit_builders:
                input_schema = {**input_schema, "properties": {**input_schema["properties"], **_CHOICES}}
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

    def get_toolkit_builders(self) -> Sequence[ToolkitBuilder | Toolkit]:
        """Return the toolkits that an asker may choose by name in `tools`; none by default."""
        return []

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """Let the model do the task. Raises LLMError when it fails, InvalidRequestError for tools that are not offered."""
        builders, model = self.get_toolkit_builders(), None
        chosen: list[Any] = []
        if builders and isinstance(arguments, dict):
            arguments = dict(arguments)
            model, chosen = arguments.pop("model", None), arguments.pop("tools", None) or []
        toolkits = list(context.toolkits)
        if chosen:
            toolkits += await make_toolkits(builders, chosen, model=model or self._llm_adapter.default_model())
        return await self._answer_with(context, _as_text(arguments), self.output_schema, toolkits, model)

    async def _answer_with(
        self,
        context: AgentCallContext,
        prompt: str,
        output_schema: Schema | None,
        toolkits: Sequence[Toolkit],
        model: str | None = None,
    ) -> Any:
        context.chat.append_user_message(prompt)
        rules = [rule for toolkit in toolkits for rule in toolkit.all_rules()]
        if rules:
            context.chat.append_rules(rules)
        return await self._llm_adapter.next(
            context=context.chat,
            room=context.room,
            toolkits=toolkits,
            tool_adapter=self._tool_adapter,
            output_schema=output_schema,
            model=model,
            on_behalf_of=context.on_behalf_of or context.caller,
        )


class DynamicLLMTaskRunner(LLMTaskRunner):
    """Answers in the form that each ask brings along: its arguments are `prompt` and `output_schema`, a JSON schema."""

    def __init__(
        self,
        *,
        name: str | None = None,
        llm_adapter: LLMAdapter[Any],
        supports_tools: bool = True,
        title: str | None = None,
        description: str | None = None,
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        requires: Sequence[Requirement] | None = None,
        rules: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            llm_adapter=llm_adapter,
            supports_tools=supports_tools,
            title=title,
            description=description,
            tool_adapter=tool_adapter,
            toolkits=toolkits,
            requires=requires,
            rules=rules,
            labels=labels,
            input_schema={
                **_PROMPT_SCHEMA,
                "required": ["prompt", "output_schema"],
                "properties": {**_PROMPT_SCHEMA["properties"], "output_schema": _OUTPUT_SCHEMA},
            },
        )

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """Let the model do the task. Raises InvalidRequestError for what is no JSON schema, LLMError when the model fails."""
        wanted = arguments["output_schema"]
        try:
            check_schema(wanted)
        except InvalidRequestError as error:
            raise InvalidRequestError("output_schema", str(error)) from None
        return await self._answer_with(context, arguments["prompt"], wanted, context.toolkits)


def _as_text(arguments: Any) -> str:
    value = arguments if isinstance(arguments, dict) else arguments.model_dump(mode="json")
    if set(value) == {"prompt"} and isinstance(value["prompt"], str):
        return str(value["prompt"])
    return json.dumps(value, ensure_ascii=False)
