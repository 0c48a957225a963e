"""How Alembic runs a migration: on the connection, and inside the transaction, that `scratch4school.schema` opened."""

from alembic import context

from scratch4school.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
