"""The server's side of Studio: serving the page, signing in, and one-time codes that sign in.

What the page shows it reads over the REST API and the room protocol that everybody uses, with the session's cookie instead of a
key (`http/sessions.py`). Only what a browser needs beside that is here.
"""
