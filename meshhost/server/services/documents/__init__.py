"""The documents service: shared documents that several participants edit at once.

`service.py` answers the requests; `open_documents.py` keeps the open documents of a room in memory and in the store.
"""
