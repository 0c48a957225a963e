"""The id of a project is given once, on SQLite too.

Left alone, SQLite gives the highest id again after its project was deleted. A tab that still showed the deleted one
could then save over the project of somebody else whose version happens to be the same. PostgreSQL's sequence never
goes back, so there is nothing to do. The former release inserts, as ever, without naming an id.
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
    # Only a table made anew can have it. What is reflected from the old one are its columns, keys and indexes, and
    # never this property, so that it has to be named to be there.
    arguments = {"sqlite_autoincrement": True} if autoincrement else {}
    with op.batch_alter_table("projects", recreate="always", table_kwargs=arguments):
        pass
