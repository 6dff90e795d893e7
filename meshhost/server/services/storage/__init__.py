"""The files of a room: `service.py` reads and deletes them, `uploads.py` writes them."""
