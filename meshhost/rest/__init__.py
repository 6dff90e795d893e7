"""A client of a room server's REST API, for programs: `Meshagent`, with the name and the methods of MeshAgent's.

`client.py` is the client, `models.py` what it returns. The command line has its own way to REST, which loads faster.
"""
