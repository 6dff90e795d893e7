"""Functions for MeshAgent programs: `connect_development_agent` and `generate_json`.

The first puts an agent into a room without a service host, for trying out; one that must live is served by a ServiceHost, which
restarts it (`meshhost service run`). The second has the room's agent `meshhost.schema_planner` fill in a schema.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meshhost.agents.base import SingleRoomAgent
from meshhost.room.environment import protocol_for
from meshhost.room.participants import Participant
from meshhost.room.requirements import Requirement
from meshhost.room.staying import stay

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["connect_development_agent", "generate_json"]

_AGENT = "meshhost.schema_planner"


async def connect_development_agent(*, room_name: str, agent: SingleRoomAgent) -> None:
    """Join a room as the agent's name and start the agent there, until SIGTERM, SIGINT, or the end of the room.

    The room server and the token come from the environment: MESHHOST_TOKEN, else one that is signed with MESHHOST_API_KEY.
    Raises RoomError when the room cannot be joined, or has ended for good.
    """
    await stay(protocol_for(participant_name=agent.name, room_name=room_name, role="agent"), agent)


async def generate_json(
    *,
    on_behalf_of: Participant | None = None,
    room: "RoomClient",
    prompt: str | None = None,
    output_schema: dict[str, Any],
    requires: Sequence[Requirement] | None = None,
) -> Any:
    """Return a value in the form of `output_schema`, which the model makes of the prompt and the toolkits in `requires`.

    Without a `prompt` the model asks the user, with the toolkits that `requires` names. The agent is one of those that every
    room has. Raises RoomError when it fails.
    """
    if prompt is None:
        prompt = (
            "Ask the user for everything that is needed to fill in this JSON schema, in as few forms as possible: "
            + json.dumps(output_schema)
        )
    return await room.agents.ask(
        agent=_AGENT,
        arguments={"prompt": prompt, "output_schema": output_schema},
        on_behalf_of=on_behalf_of,
        requires=list(requires) if requires else None,
    )
