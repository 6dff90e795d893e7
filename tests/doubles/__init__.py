"""Our own test doubles: importable in every test as `doubles`, since pytest has `tests` on its path.

What the tests of a user's program need is in `meshhost.testing` instead: a clock, a scripted model, a scripted provider, agents
that misbehave in one way each, and a real room server.
"""
