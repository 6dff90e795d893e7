"""Moves what a room server keeps from one engine to another, table by table: `meshhost db copy`."""
