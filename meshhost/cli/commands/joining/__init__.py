"""Agents of flags: `meshhost chatbot join` and its like, without a program of one's own; and `meshhost call`.

`joining.py` makes the arguments of `program.py`, an ordinary program with a ServiceHost, and runs it as `meshhost service run`
does: so the agent is supervised, comes back when the room server restarts, and ends in order with Ctrl-C.
"""
