"""`meshhost tenant`, `meshhost key` and `meshhost usage`: tenants, their keys, and what they used of models."""
