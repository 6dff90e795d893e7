"""An agent that writes into a document of the room, which it is asked to."""

import asyncio

from meshagent.agents.writer import Writer, WriterContext
from meshagent.api.schema_util import merge, no_arguments_schema, prompt_schema
from meshagent.api.services import ServiceHost

service = ServiceHost()


@service.path(path="/notes", identity="note-writer")
class NoteWriter(Writer):
    def __init__(self):
        super().__init__(
            name="note-writer",
            title="Note writer",
            input_schema=merge(
                schema=prompt_schema(description="a note"), additional_properties={"path": {"type": "string"}}
            ),
            output_schema=no_arguments_schema(),
        )

    async def write(self, writer_context: WriterContext, arguments: dict):
        root = writer_context.document.root
        root.append_child(tag_name="heading", attributes={"text": "Note"})
        root.append_child(tag_name="body", attributes={"text": arguments["prompt"]})
        return {}


if __name__ == "__main__":
    asyncio.run(service.run())
