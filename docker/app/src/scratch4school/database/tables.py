"""The tables, as the migrations leave them; a test compares the two.

A column that names a file of the uploads folder declares it by `info={"file": KIND}`; KIND is "project", "thumbnail" or
"asset". The sweep keeps the files that these columns name, and the import checks them (file_columns.py).
"""

import sqlalchemy as sa

metadata = sa.MetaData()

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("username", sa.String(128), nullable=False),
    sa.Column("email", sa.String(128)),
    sa.Column("role", sa.String(50)),
    sa.Column("created_at", sa.DateTime),
    sa.Column("last_login", sa.DateTime),
    sa.Column("user_data", sa.JSON),
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("external_id", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("created_at", sa.DateTime),
)

user_groups = sa.Table(
    "user_groups",
    metadata,
    sa.Column("user_id", sa.String(128), sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("group_id", sa.Integer, sa.ForeignKey("groups.id"), primary_key=True),
    sa.Column("joined_at", sa.DateTime),
    sa.Index("ix_user_groups_group_id", "group_id"),
)

oauth_sessions = sa.Table(
    "oauth_sessions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("user_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
    sa.Column("access_token", sa.Text, nullable=False),
    sa.Column("refresh_token", sa.Text),
    sa.Column("expires_at", sa.DateTime, nullable=False),
    sa.Column("created_at", sa.DateTime),
    sa.Column("last_accessed", sa.DateTime),
    sa.Index("ix_oauth_sessions_user_id", "user_id"),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("sb3_file_path", sa.String(255), info={"file": "project"}),
    sa.Column("thumbnail_path", sa.String(255), info={"file": "thumbnail"}),
    sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("owner_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at", sa.DateTime),
    sa.Column("updated_at", sa.DateTime),
    sa.Column("is_published", sa.Boolean),
    sa.Index("ix_projects_owner_id", "owner_id"),
    # If an id were used again, a stale tab could save over another user's project.
    sqlite_autoincrement=True,
)

# One row for each saved version, the current one included; without size and hash if the file was saved before this
# table existed. The newest few of a project are kept.
project_revisions = sa.Table(
    "project_revisions",
    metadata,
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("file_path", sa.String(255), nullable=False, info={"file": "project"}),
    sa.Column("size", sa.Integer),
    sa.Column("sha256", sa.String(64)),
    sa.Column("saved_by", sa.String(128), nullable=False),
    sa.Column("created_at", sa.DateTime),
)

project_groups = sa.Table(
    "project_groups",
    metadata,
    sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("group_id", sa.Integer, sa.ForeignKey("groups.id"), primary_key=True),
    sa.Column("published_at", sa.DateTime),
    sa.Index("ix_project_groups_group_id", "group_id"),
)

assets = sa.Table(
    "assets",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("asset_id", sa.String(128), nullable=False),
    sa.Column("asset_type", sa.String(50), nullable=False),
    sa.Column("data_format", sa.String(10), nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("md5", sa.String(32), nullable=False),
    sa.Column("owner_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
    sa.Column("file_path", sa.String(255), nullable=False, info={"file": "asset"}),
    sa.Column("created_at", sa.DateTime),
    sa.UniqueConstraint("md5", "asset_type", name="_md5_type_uc"),
    sa.Index("ix_assets_md5", "md5"),
    sa.Index("ix_assets_asset_id", "asset_id"),
    sa.Index("ix_assets_owner_id", "owner_id"),
)

backpack_items = sa.Table(
    "backpack_items",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("type", sa.String(20), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("mime", sa.String(50), nullable=False),
    sa.Column("body", sa.String(128), nullable=False),
    sa.Column("thumbnail", sa.String(128), nullable=False),
    sa.Column("owner_id", sa.String(128), sa.ForeignKey("users.id"), nullable=False),
    sa.Column("created_at", sa.DateTime),
    sa.Column("updated_at", sa.DateTime),
    sa.Index("ix_backpack_items_owner_id", "owner_id"),
)
