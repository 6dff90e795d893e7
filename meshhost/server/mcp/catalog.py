"""What a caller may use in a room, as MCP describes tools: the tools of public toolkits, and the agents that can be asked.

The registry of the room says what is there, the caller's grants what of it may be used; private toolkits belong to others and
are not among it. `Offers.of` is made anew for each request, because both may change at any time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshhost.protocol.tool_names import AGENTS, acceptable_name, changed_name, offered_name
from meshhost.server.core.participants import Participant
from meshhost.server.services.agents.registry import Registered, Registry, toolkit_card

__all__ = ["PAGE", "Offer", "described", "offers", "page_of"]

PAGE = 200
"""Tools in one page of a list."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One tool of a toolkit, or an agent (`toolkit` is None). `card` is how the room describes it."""

    name: str
    toolkit: str | None
    tool: str
    card: Mapping[str, Any]


def offers(registry: Registry, caller: Participant, only: str | None) -> dict[str, Offer]:
    """What the caller may use, by name; of the toolkit `only`, under the tools' own names, if one is asked for."""
    found = [offer for entry in registry.visible_toolkits(caller, None) for offer in _of_toolkit(entry, only)]
    agents = caller.scope.agents
    if only is None and agents is not None and agents.use_agents:
        found += [
            Offer(offered_name(AGENTS, each.name), None, each.name, each.description)
            for each in registry.newest_agents()
        ]
    by_name: dict[str, Offer] = {}
    for offer in sorted(found, key=lambda offer: (offer.name, offer.toolkit or "", offer.tool)):
        name = offer.name
        if name in by_name:  # somebody chose a name that ends as a changed one does
            name = changed_name(offer.toolkit or AGENTS, offer.tool, name)
        by_name[name] = Offer(name, offer.toolkit, offer.tool, offer.card)
    return by_name


def _of_toolkit(entry: Registered, only: str | None) -> list[Offer]:
    if only is not None and entry.name != only:
        return []
    tools: Mapping[str, Mapping[str, Any]] = toolkit_card(entry)["tools"]
    if only is not None:
        return [Offer(acceptable_name(tool), only, tool, card) for tool, card in tools.items()]
    # A toolkit that has the name under which agents are listed must not pass for them.
    named = changed_name if entry.name == AGENTS else offered_name
    return [Offer(named(entry.name, tool), entry.name, tool, card) for tool, card in tools.items()]


def page_of(found: Mapping[str, Offer], after: str | None) -> tuple[list[Offer], str | None]:
    """The offers after the one of this name, and the name after which the next page begins; None after the last page."""
    names = sorted(name for name in found if after is None or name > after)
    page = [found[name] for name in names[:PAGE]]
    return page, page[-1].name if len(names) > PAGE else None


def described(offer: Offer) -> dict[str, Any]:
    """The offer as an item of `tools/list`."""
    card = offer.card
    described: dict[str, Any] = {"name": offer.name, "inputSchema": input_schema(offer)}
    if title := card.get("title"):
        described["title"] = title
    if description := card.get("description"):
        described["description"] = description
    output = card.get("output_schema")
    if isinstance(output, dict) and output.get("type") == "object":  # agents; others are no structured content
        described["outputSchema"] = output
    return described


def input_schema(offer: Offer) -> dict[str, Any]:
    """The JSON schema of the arguments. MCP takes objects only, which is what rooms pass as arguments."""
    given = offer.card.get("input_schema")
    schema: dict[str, Any] = {**given} if isinstance(given, dict) else {}
    schema["type"] = "object"
    defs = offer.card.get("defs")
    if isinstance(defs, dict) and defs:
        inner = schema.get("$defs")
        schema["$defs"] = {**(inner if isinstance(inner, dict) else {}), **defs}
    return schema
