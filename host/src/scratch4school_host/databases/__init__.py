"""The two engines, a PostgreSQL server for a while, and the reader of PostgreSQL's dumps."""
