"""The process in which a tenant's tables are opened: the only code that imports LanceDB and Arrow.

`__main__` reads requests from its standard input and answers on its standard output (`frames`); `operations` does them;
`rows` turns JSON into Arrow and back; `memory` ends the process when it needs too much. It ends when its standard input does,
so that it never outlives the server. It holds nothing that is not in the tables: it may be killed at any moment.
"""
