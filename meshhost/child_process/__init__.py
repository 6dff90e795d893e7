"""Child processes that were started with asyncio: how they end (`ending.py`). A leaf."""
