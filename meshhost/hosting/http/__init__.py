"""The HTTP surface of a host: calls (`routes.py`), and the operator's pages (`admin.py`, `pages.py`).

It translates between HTTP and the parts below (`calls`, `tenants`, `observe`) and decides nothing itself.
"""
