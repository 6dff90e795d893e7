"""The agents service: toolkits and agents that participants register, and calls between participants.

`service.py` answers the requests; `bodies.py` has their shapes, `registry.py` what is registered in a room, `calls.py` the
calls in progress, `arrivals.py` the requests that wait for an agent, `built_in.py` the addresses that MeshAgent's agents expect
every room to have.
"""
