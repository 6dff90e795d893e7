"""What a tenant or a room keeps, as a whole: over all stores at once.

Each store knows its own part only. Work here goes through all of them, takes as long as there is much to do, and never holds
the event loop or a store for long. `http` calls it; it may use `core` and the stores, no service and no route.
"""
