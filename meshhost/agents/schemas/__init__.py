"""Document schemas that agents share."""
