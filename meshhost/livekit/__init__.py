"""The names that MeshAgent programs import from `meshagent.livekit`. Re-exports only: the code is in `meshhost.voice`."""
