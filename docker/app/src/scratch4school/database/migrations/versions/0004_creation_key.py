"""A first save that is sent again creates no second project.

The client names each new project by a key of its own. The previous release leaves the key empty, and so does an import.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

kind = "expand"

_INDEX = "ix_projects_creation_key"


def upgrade() -> None:
    op.add_column("projects", sa.Column("creation_key", sa.String(64)))
    op.create_index(_INDEX, "projects", ["owner_id", "creation_key"], unique=True)


def downgrade() -> None:
    op.drop_index(_INDEX, "projects")
    op.drop_column("projects", "creation_key")
