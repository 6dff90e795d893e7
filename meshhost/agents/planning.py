"""`PlanningResponder` and `DynamicPlanningResponder`: task runners that let the model plan, use tools and then answer.

The names of `meshagent.agents.planning`. MeshAgent asks the model for each step in a form of its own and has it call a tool
with the answer. Models plan by themselves today, so here one conversation with tools does all, and its answer is in the form of
`output_schema`. `max_iterations` is taken but not needed: the model adapter bounds the rounds of tools (`max_tool_rounds`).
"""

from collections.abc import Sequence
from typing import Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.llmrunner import DynamicLLMTaskRunner, LLMTaskRunner
from meshhost.agents.task_runner import SchemaOrModel
from meshhost.room.requirements import Requirement
from meshhost.tools.toolkit import Toolkit

__all__ = ["DynamicPlanningResponder", "PlanningResponder"]

_PLANNING_RULES = (
    "Think of the steps that the task needs, and take them one after the other with the tools that you have.",
    "If you can ask the user and need to know something, ask before you answer.",
    "Answer only when the task is done, or when it cannot be done: then say why.",
)


class PlanningResponder(LLMTaskRunner):
    """Answers asks in the form of `output_schema`. `rules` are added to those about planning."""

    def __init__(
        self,
        *,
        name: str | None = None,
        llm_adapter: LLMAdapter[Any],
        tool_adapter: ToolResponseAdapter | None = None,
        output_schema: SchemaOrModel,
        max_iterations: int = 100,
        toolkits: Sequence[Toolkit] | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        supports_tools: bool = True,
        input_prompt: bool = True,
        rules: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            llm_adapter=llm_adapter,
            tool_adapter=tool_adapter,
            output_schema=output_schema,
            toolkits=toolkits,
            title=title,
            description=description,
            requires=requires,
            supports_tools=supports_tools,
            input_prompt=input_prompt,
            rules=[*(rules or ()), *_PLANNING_RULES],
            labels=labels,
        )
        self.max_iterations = max_iterations


class DynamicPlanningResponder(DynamicLLMTaskRunner):
    """Answers asks in the form that each ask brings along, as its argument `output_schema`."""

    def __init__(
        self,
        *,
        name: str | None = None,
        llm_adapter: LLMAdapter[Any],
        tool_adapter: ToolResponseAdapter | None = None,
        max_iterations: int = 100,
        toolkits: Sequence[Toolkit] | None = None,
        title: str | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(
            name=name,
            llm_adapter=llm_adapter,
            tool_adapter=tool_adapter,
            toolkits=toolkits,
            title=title,
            description=description,
            rules=_PLANNING_RULES,
        )
        self.max_iterations = max_iterations
