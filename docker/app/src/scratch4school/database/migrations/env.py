"""Alembic runs this for each migration, on the connection and in the transaction that `database.schema` opened."""

from alembic import context

from scratch4school.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
