"""The id of a project is used once, on SQLite too.

By default SQLite uses the highest id again after its project was deleted. A tab that still shows the deleted project
could then save over another user's project that happens to have the same version. PostgreSQL's sequence never goes
back, so nothing changes there. The previous release inserts rows without naming an id, as before.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

kind = "expand"


def upgrade() -> None:
    _rebuild_projects(autoincrement=True)


def downgrade() -> None:
    _rebuild_projects(autoincrement=False)


def _rebuild_projects(autoincrement: bool) -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    # Only a new table can have this property. A rebuild reflects columns, keys and indexes of the old table but never
    # this property, so it must be named.
    arguments = {"sqlite_autoincrement": True} if autoincrement else {}
    with op.batch_alter_table("projects", recreate="always", table_kwargs=arguments):
        pass
