"""MeshAgent's former import path of the schema of plain documents: see `document.py`."""
