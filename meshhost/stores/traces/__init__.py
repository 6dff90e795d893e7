"""Where a room server keeps the spans of traces: the contract of such a store (`contract.py`)."""
