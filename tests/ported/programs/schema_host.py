"""A host that brings a schema of its own into each room."""

import asyncio

from meshagent.api import ChildProperty, ElementType, MeshSchema, SchemaRegistration, SchemaRegistry, ValueProperty
from meshagent.api.services import ServiceHost

service = ServiceHost()

menu = MeshSchema(
    root_tag_name="menu",
    elements=[
        ElementType(
            tag_name="menu", description="a menu", properties=[ChildProperty(name="dishes", child_tag_names=["dish"])]
        ),
        ElementType(tag_name="dish", description="a dish", properties=[ValueProperty(name="name", type="string")]),
    ],
)


@service.path(path="/schemas/menu", identity="menu-schema")
class MenuSchema(SchemaRegistry):
    def __init__(self):
        super().__init__(
            name="menu-schema",
            validate_webhook_secret=False,
            schemas=[SchemaRegistration(name="menu", schema=menu)],
        )


if __name__ == "__main__":
    asyncio.run(service.run())
