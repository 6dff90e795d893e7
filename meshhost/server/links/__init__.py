"""Links of hosts that dial in: the route, the links that are kept, and the channel over which a host is called.

May import `http` for who makes a request, `joining` and `calling`; only the assembly imports it.
"""
