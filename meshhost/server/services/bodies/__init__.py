"""Large bodies and results of messages on the wire: received in pieces beside the header, and fetched in pieces.

`transfer.py` has the requests of clients that know them; `inline.py` hands a large body to a client that does not.
"""
