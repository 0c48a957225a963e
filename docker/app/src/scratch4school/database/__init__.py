"""The database: tables, migrations, engines, and transactions that are tried again."""
