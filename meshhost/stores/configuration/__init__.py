"""What tenants configured by themselves: secrets, services and webhooks. `contract.py` says what its store promises.

Engines implement it in packages of their own; `meshhost.server.tenant` gives the content a meaning.
"""
