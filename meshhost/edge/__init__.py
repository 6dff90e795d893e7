"""What guards a listening port before anybody is authenticated; used by the room server and the service host alike.

`listener.py` ends connections that do not finish their requests and bounds how many there are, within `limits.py`;
`same_machine.py` tells programs of this machine from everybody else.
"""
