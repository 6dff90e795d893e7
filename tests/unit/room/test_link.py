"""The services know their room only as a `RoomLink`."""

import ast
from pathlib import Path

import pytest

import meshhost.room.services

SERVICES = sorted(Path(meshhost.room.services.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_no_service_imports_the_room_client(path: Path) -> None:
    """Not for type checking either: the client imports every service."""
    nodes = ast.walk(ast.parse(path.read_text()))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported.isdisjoint({"meshhost.room.client", "meshhost.room.keeper", "meshhost.room.session"})
