"""What stores do with a disk themselves: how much of it they leave free, uploads in progress, and files in a folder.

Used by the SQLite stores and by `meshhost.stores.files`; knows neither. May import the leaves.
"""
