"""A chat bot whose model may use a tool of its own: a list of tasks that it keeps."""

import asyncio

from meshagent.agents.chat import ChatBot
from meshagent.api.messaging import JsonResponse
from meshagent.api.services import ServiceHost
from meshagent.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshagent.otel import otel_config
from meshagent.tools import Tool, ToolContext, Toolkit

otel_config(service_name="task-chatbot")

service = ServiceHost()
tasks: list[str] = []


class AddTask(Tool):
    def __init__(self):
        super().__init__(
            name="add_task",
            title="Add a task",
            description="puts a task on the list and returns the whole list",
            input_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["task"],
                "properties": {"task": {"type": "string", "description": "what has to be done"}},
            },
        )

    async def execute(self, context: ToolContext, task: str):
        tasks.append(task)
        return JsonResponse(json={"tasks": tasks})


@service.path(path="/tasks", identity="task-chatbot")
class TaskChatbot(ChatBot):
    def __init__(self):
        super().__init__(
            name="task-chatbot",
            title="Task list",
            description="keeps a list of tasks",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            toolkits=[Toolkit(name="tasks", tools=[AddTask()])],
            rules=["Put on the list whatever somebody says has to be done."],
        )


if __name__ == "__main__":
    asyncio.run(service.run())
