"""How participants are reached: a connection each, in the dialect their client speaks."""
