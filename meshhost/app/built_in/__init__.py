"""The agents and toolkits that MeshAgent programs take for granted in every room, in a service host of the room server's own.

`agents.py` has them, `program.py` is the program that serves them, `process.py` owns its process: started when the first is
wanted, ended when nobody wants one any more, and with the room server however that ends. They join rooms like all agents do,
with tokens of their tenants, so limits, costs and traces count for those. Which names stand for them, what they may do and for
whom is decided by the room server (`meshhost.server.services.agents.built_in`).
"""
