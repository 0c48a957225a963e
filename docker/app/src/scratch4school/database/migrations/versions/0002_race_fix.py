"""The fix: versions, saved versions, assets unique by content and type, and indexes for look-ups by owner.

The previous release works with it. It names neither the new column, which has a default, nor the new table. The dropped
constraint, `assets.asset_id` unique on its own, only ever rejected its rows.

A database of the original may have a part of this already, because the original's fix added it to new databases or at
start-up. So each part is added only where it is missing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

kind = "expand"

_INDEXES = {
    "ix_projects_owner_id": ("projects", "owner_id"),
    "ix_oauth_sessions_user_id": ("oauth_sessions", "user_id"),
    "ix_backpack_items_owner_id": ("backpack_items", "owner_id"),
    "ix_assets_owner_id": ("assets", "owner_id"),
    "ix_assets_asset_id": ("assets", "asset_id"),
    "ix_user_groups_group_id": ("user_groups", "group_id"),
    "ix_project_groups_group_id": ("project_groups", "group_id"),
}


def upgrade() -> None:
    _add_version()
    # Of duplicate rows with one content and type the oldest stays: look-ups have answered with that one.
    op.execute("DELETE FROM assets WHERE id NOT IN (SELECT min(id) FROM assets GROUP BY md5, asset_type)")
    _rebuild_assets(unique=("md5", "asset_type"))
    for name, (table, column) in _INDEXES.items():
        op.create_index(name, table, [column])
    op.create_table(
        "project_revisions",
        sa.Column("project_id", sa.Integer, sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("file_path", sa.String(255), nullable=False),
        sa.Column("size", sa.Integer),
        sa.Column("sha256", sa.String(64)),
        sa.Column("saved_by", sa.String(128), nullable=False),
        sa.Column("created_at", sa.DateTime),
    )


def downgrade() -> None:
    op.drop_table("project_revisions")
    for name, (table, _) in _INDEXES.items():
        op.drop_index(name, table_name=table)
    # In the older schema one content can have only one type.
    op.execute("DELETE FROM assets WHERE id NOT IN (SELECT min(id) FROM assets GROUP BY asset_id)")
    _rebuild_assets(unique=("asset_id",))
    op.drop_column("projects", "version")


def _add_version() -> None:
    columns = {column["name"]: column for column in sa.inspect(op.get_bind()).get_columns("projects")}
    if "version" not in columns:
        op.add_column("projects", sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")))
        return
    op.execute("UPDATE projects SET version = 1 WHERE version IS NULL")
    with op.batch_alter_table("projects") as projects:
        projects.alter_column("version", existing_type=sa.Integer, nullable=False, server_default=sa.text("1"))


def _rebuild_assets(unique: tuple[str, ...]) -> None:
    """Make `unique` the only unique constraint of assets."""
    if op.get_bind().dialect.name == "sqlite":
        _copy_assets(unique)
        return
    present = {
        tuple(constraint["column_names"]): constraint["name"]
        for constraint in sa.inspect(op.get_bind()).get_unique_constraints("assets")
    }
    for columns, name in present.items():
        if columns != unique:
            op.drop_constraint(name, "assets", type_="unique")
    if unique not in present:
        name = "_md5_type_uc" if len(unique) == 2 else "assets_asset_id_key"
        op.create_unique_constraint(name, "assets", list(unique))


def _copy_assets(unique: tuple[str, ...]) -> None:
    # SQLite cannot drop a constraint, so the table is copied into a new one.
    constraint = f"{'CONSTRAINT _md5_type_uc ' if len(unique) == 2 else ''}UNIQUE ({', '.join(unique)})"
    columns = "id, asset_id, asset_type, data_format, size, md5, owner_id, file_path, created_at"
    op.execute(
        f"""
        CREATE TABLE assets_copy (
            id INTEGER NOT NULL,
            asset_id VARCHAR(128) NOT NULL,
            asset_type VARCHAR(50) NOT NULL,
            data_format VARCHAR(10) NOT NULL,
            size INTEGER NOT NULL,
            md5 VARCHAR(32) NOT NULL,
            owner_id VARCHAR(128) NOT NULL,
            file_path VARCHAR(255) NOT NULL,
            created_at DATETIME,
            PRIMARY KEY (id),
            {constraint},
            FOREIGN KEY(owner_id) REFERENCES users (id)
        )
        """
    )
    op.execute(f"INSERT INTO assets_copy ({columns}) SELECT {columns} FROM assets")  # noqa: S608
    op.execute("DROP TABLE assets")
    op.execute("ALTER TABLE assets_copy RENAME TO assets")
    op.create_index("ix_assets_md5", "assets", ["md5"])
