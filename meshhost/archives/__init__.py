"""The file format of archives: a plain tar with a manifest first and a checksum last.

What an archive of a tenant or room contains is known to `meshhost.server.data`, which writes and imports them; the command line
only checks a file and reads its manifest. Imports nothing but errors.
"""
