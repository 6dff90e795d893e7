"""A schema that the tests of documents share."""

import pytest

from meshhost.documents.schema import ChildProperty, ElementType, MeshSchema, ValueProperty


def page_schema() -> MeshSchema:
    blocks = ChildProperty(name="blocks", child_tag_names=["section", "note", "text"])
    return MeshSchema(
        root_tag_name="page",
        elements=[
            ElementType(tag_name="page", properties=[blocks]),
            ElementType(
                tag_name="section",
                description="a part",
                properties=[
                    ValueProperty(name="title", type="string", description="its name"),
                    ValueProperty(name="level", type="number"),
                    ValueProperty(name="open", type="boolean"),
                    ValueProperty(name="nothing", type="null"),
                    ValueProperty(name="state", type="string", enum=["draft", "done"]),
                    blocks,
                ],
            ),
            ElementType(tag_name="note", properties=[ValueProperty(name="body", type="string")]),
            ElementType(tag_name="text", properties=[ChildProperty(name="runs", child_tag_names=[])]),
        ],
    )


@pytest.fixture(scope="session")
def schema() -> MeshSchema:
    return page_schema()
