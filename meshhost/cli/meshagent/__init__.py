"""MeshAgent's command lines as ours: `spellings.py` has the tables, `translating.py` reads them before a command is parsed.

People who know MeshAgent type what its documentation says. What we have under another name is run; what we do not have is
answered by its name, with what to use instead. None of it is in `--help`, which shows one spelling of each command.
"""
