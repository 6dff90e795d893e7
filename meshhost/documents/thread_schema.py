"""The schema of chat threads: the elements and attributes of `meshagent.agents.thread_schema`, which MeshAgent clients expect.

Chat agents write threads by it, and a room server stores it for a room whose agents ask for it.
"""

from meshhost.documents.schema import (
    ChildProperty,
    ElementProperty,
    ElementType,
    MeshSchema,
    SimpleValue,
    ValueProperty,
)

__all__ = ["thread_schema"]


def _value(name: str, description: str, type: SimpleValue = "string") -> ValueProperty:
    return ValueProperty(name=name, type=type, description=description)


def _element(tag_name: str, description: str, *properties: ElementProperty) -> ElementType:
    return ElementType(tag_name=tag_name, description=description, properties=properties)


_CREATED = _value("created_at", "when it began, as ISO 8601")

thread_schema = MeshSchema(
    root_tag_name="thread",
    elements=[
        _element(
            "thread",
            "a conversation",
            _value("name", "what the thread is called"),
            ChildProperty(name="properties", child_tag_names=["members", "messages"]),
        ),
        _element("members", "who takes part", ChildProperty(name="items", child_tag_names=["member"])),
        _element("member", "somebody who takes part", _value("name", "the participant's name")),
        _element(
            "messages",
            "what was said and done, oldest first",
            ChildProperty(name="items", child_tag_names=["message", "exec", "ui", "reasoning"]),
        ),
        _element(
            "message",
            "something that was said",
            _value("id", "names the message"),
            _value("text", "what was said"),
            _CREATED,
            _value("author_name", "the name of the participant who said it"),
            _value(
                "author_ref", "who it was, in another system; meshhost's agents say here what kind of message it is"
            ),
            ChildProperty(name="attachments", child_tag_names=["file"]),
        ),
        _element("file", "a file that goes with a message", _value("path", "where it is in the room's storage")),
        _element(
            "exec",
            "something that was run: a command, or a tool",
            _value("command", "what was run"),
            _value("result", "what came of it"),
            _value("pwd", "the folder it was run in"),
            _CREATED,
        ),
        _element(
            "ui",
            "something to be shown by a widget of its own",
            _value("data", "what the widget shows, mostly JSON"),
            _value("renderer", "what shows it"),
            _value("widget", "the kind of widget"),
            _value("width", "its width", "number"),
            _value("height", "its height", "number"),
            _CREATED,
        ),
        _element("reasoning", "how the model came to its answer", _value("summary", "in short"), _CREATED),
    ],
)
