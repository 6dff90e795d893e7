"""Document schemas that agents share: MeshAgent's `meshagent.agents.schemas`. Data only; one schema per module."""
