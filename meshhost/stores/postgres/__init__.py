"""The engine over PostgreSQL: everything durable but files in one database.

Here belong one implementation per contract of `meshhost.stores`, the connection pool they share (`database.py`), and their SQL
in `.sql` files with numbered migrations. All tables live in the schema `meshhost`. May import the contracts and the leaves;
psycopg is imported nowhere else, so that it is needed by those who use this engine only (`pip install 'meshhost[postgres]'`).
"""
