"""Pages of a folder's entries, from what keeps them in order and from what does not.

A folder may hold a million entries, so a reader takes them page by page: `entries` says in which order and with which cursor,
`names` reads a local folder in short steps and keeps the names of a large one while it does not change, and `objects` asks an
object store from a key on. `meshhost.stores.files` puts them together and adds sizes and times.
"""
