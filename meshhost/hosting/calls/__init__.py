"""From a signed call to a running agent, and what is remembered of it."""
