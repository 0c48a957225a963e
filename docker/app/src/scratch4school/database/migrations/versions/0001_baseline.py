"""The original's tables as they were before its fix."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

kind = "expand"


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("external_id", sa.String(255), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("created_at", sa.DateTime),
        sa.UniqueConstraint("external_id"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("username", sa.String(128), nullable=False),
        sa.Column("email", sa.String(128)),
        sa.Column("role", sa.String(50)),
        sa.Column("created_at", sa.DateTime),
        sa.Column("last_login", sa.DateTime),
        sa.Column("user_data", sa.JSON),
    )
    op.create_table(
        "assets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("asset_id", sa.String(128), nullable=False),
        sa.Column("asset_type", sa.String(50), nullable=False),
        sa.Column("data_format", sa.String(10), nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("md5", sa.String(32), nullable=False),
        sa.Column("owner_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("file_path", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime),
        sa.UniqueConstraint("asset_id"),
    )
    op.create_index("ix_assets_md5", "assets", ["md5"])
    op.create_table(
        "backpack_items",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("mime", sa.String(50), nullable=False),
        sa.Column("body", sa.String(128), nullable=False),
        sa.Column("thumbnail", sa.String(128), nullable=False),
        sa.Column("owner_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("created_at", sa.DateTime),
        sa.Column("updated_at", sa.DateTime),
    )
    op.create_table(
        "oauth_sessions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("user_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("access_token", sa.Text, nullable=False),
        sa.Column("refresh_token", sa.Text),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        sa.Column("created_at", sa.DateTime),
        sa.Column("last_accessed", sa.DateTime),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("sb3_file_path", sa.String(255)),
        sa.Column("thumbnail_path", sa.String(255)),
        sa.Column("owner_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("created_at", sa.DateTime),
        sa.Column("updated_at", sa.DateTime),
        sa.Column("is_published", sa.Boolean),
    )
    op.create_table(
        "user_groups",
        sa.Column("user_id", sa.String(128), sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("group_id", sa.Integer, sa.ForeignKey("groups.id"), primary_key=True),
        sa.Column("joined_at", sa.DateTime),
    )
    op.create_table(
        "project_groups",
        sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("group_id", sa.Integer, sa.ForeignKey("groups.id"), primary_key=True),
        sa.Column("published_at", sa.DateTime),
    )


def downgrade() -> None:
    for table in (
        "project_groups",
        "user_groups",
        "projects",
        "oauth_sessions",
        "backpack_items",
        "assets",
        "users",
        "groups",
    ):
        op.drop_table(table)
