"""Command lines of MeshAgent's documentation: each is one of ours, or is answered by its name with what to use instead."""

import logging
from collections.abc import Callable

import pytest

from docs.generate.meshagent_lines import GENERATIONS, understood

logger = logging.getLogger(__name__)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_documented_command_line_is_understood(
    generation: str, record_property: Callable[[str, object], None]
) -> None:
    lines = understood(generation)
    ours = [each for each in lines if each.ours is not None]
    instead = [each for each in lines if each.instead is not None]
    unknown = [f"{each.line}: {each.problem}" for each in lines if each.problem is not None]
    counts = {"lines": len(lines), "run": len(ours), "instead": len(instead), "unknown": unknown}
    for name, value in counts.items():
        record_property(name, value)
    logger.warning("MeshAgent %s: %s", generation, counts)

    assert len(ours) + len(instead) >= 0.95 * len(lines), unknown
    assert all("meshhost " in each.instead for each in instead if each.instead)
