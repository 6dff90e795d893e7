"""The package of `meshhost.livekit.agents.voice`. Re-exports only."""
