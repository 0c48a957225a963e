"""A school made of rows: pupils with sessions, and any number of projects, the same on both database engines.

No pupil logs in for a measurement: a login is mostly the provider's work, and the lab's provider has 120 pupils only.
The statements are SQL that PostgreSQL and SQLite both understand.
"""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from .host import FOLDER, Host

PUPILS = 400
CLASS_SIZE = 25
# Rows of a large school: the projects of each pupil, one in so many of which is shared with the owner's class.
PROJECTS_OF_ONE = 20
SHARED_EVERY = 20
# Ids go down from here: what the application adds gets higher ones on SQLite, and far lower ones on PostgreSQL.
ROW_IDS = 100_000_000
# The number that on_host/fill.py makes.
MOST_PUPILS = 2000
FINISH_POSTPONED = ("VACUUM ANALYZE", "CHECKPOINT")
SQLITE_FILE = f"{FOLDER}/benchmark/database/main.db"
APPLY = "import sqlite3, sys; sqlite3.connect(sys.argv[1], 60).executescript(sys.stdin.read())"


def user(number: int) -> str:
    """The id of a pupil."""
    return f"bench-{number}"


def session(number: int) -> str:
    """The id of a pupil's session. It can be guessed, so only lab hosts get it."""
    return f"benchmark-{number}"


def apply(host: Host, statements: str, database: str) -> None:
    """Run statements on the database on which the application stands: `sqlite`, or any other word for PostgreSQL."""
    if database == "sqlite":
        host.run(f"python3 -c {shlex.quote(APPLY)} {SQLITE_FILE}", statements.encode())
    else:
        host.sql(statements)


def log_pupils_in(host: Host, database: str, pupils: int = PUPILS) -> None:
    """Make pupils in their classes, each with a session that is valid for years; those that are there stay."""
    numbers = _numbers(0, pupils - 1)
    apply(
        host,
        f"""
        {numbers} INSERT INTO users (id, username, email, role, created_at, user_data)
          SELECT 'bench-' || i, 'kind' || i, 'kind' || i || '@schule.example', 'student', '2026-09-01 08:00:00', '{{}}'
          FROM n WHERE true ON CONFLICT DO NOTHING;
        {numbers} INSERT INTO oauth_sessions (id, user_id, access_token, expires_at, created_at)
          SELECT 'benchmark-' || i, 'bench-' || i, 'none', '2099-01-01 00:00:00', '2026-09-01 08:00:00'
          FROM n WHERE true ON CONFLICT DO NOTHING;
        {_numbers(0, (pupils - 1) // CLASS_SIZE)} INSERT INTO groups (name, external_id, created_at)
          SELECT 'Class ' || i, 'benchmark.' || i, '2026-09-01 08:00:00' FROM n WHERE true ON CONFLICT DO NOTHING;
        {numbers} INSERT INTO user_groups (user_id, group_id, joined_at)
          SELECT 'bench-' || n.i, g.id, '2026-09-01 08:00:00'
          FROM n JOIN groups g ON g.external_id = 'benchmark.' || (n.i / {CLASS_SIZE})
          WHERE true ON CONFLICT DO NOTHING;
        """,
        database,
    )


def write_sessions(path: Path, pupils: int = PUPILS) -> None:
    """The file that scripts/classroom takes in place of logging a class in."""
    path.write_text("".join(f"{user(number)},{session(number)}\n" for number in range(pupils)))


def grow(host: Host, database: str, first: int, last: int) -> None:
    """Add projects `first` to `last` of other pupils, who are made too, with their revisions, classes and assets.

    They are rows only: no request opens their files.
    """
    numbers, moment = _numbers(first, last), "'2026-09-01 08:00:00'"
    owners = _numbers(first // PROJECTS_OF_ONE, last // PROJECTS_OF_ONE)
    classes = _numbers(first // PROJECTS_OF_ONE // CLASS_SIZE, last // PROJECTS_OF_ONE // CLASS_SIZE)
    apply(
        host,
        f"""
        BEGIN;
        {owners} INSERT INTO users (id, username, email, role, created_at, user_data)
          SELECT 'row-' || i, 'row' || i, 'row' || i || '@schule.example', 'student', {moment}, '{{}}'
          FROM n WHERE true ON CONFLICT DO NOTHING;
        {owners} INSERT INTO oauth_sessions (id, user_id, access_token, expires_at, created_at)
          SELECT 'row-' || i, 'row-' || i, 'none', {moment}, {moment} FROM n WHERE true ON CONFLICT DO NOTHING;
        {classes} INSERT INTO groups (id, name, external_id, created_at)
          SELECT {ROW_IDS} - i, 'Row class ' || i, 'row.' || i, {moment} FROM n WHERE true ON CONFLICT DO NOTHING;
        {owners} INSERT INTO user_groups (user_id, group_id, joined_at)
          SELECT 'row-' || i, {ROW_IDS} - i / {CLASS_SIZE}, {moment} FROM n WHERE true ON CONFLICT DO NOTHING;
        {numbers} INSERT INTO projects (id, name, description, sb3_file_path, thumbnail_path, version, owner_id,
            created_at, updated_at, is_published)
          SELECT {ROW_IDS} - i, 'Project ' || i, 'Created on 2026-09-01', 'projects/row/' || i || '.sb3',
            'thumbnails/row/' || i || '.png', 1, 'row-' || (i / {PROJECTS_OF_ONE}), {moment}, {moment},
            i % {SHARED_EVERY} = 0 FROM n;
        {numbers} INSERT INTO project_revisions (project_id, version, file_path, size, sha256, saved_by, created_at)
          SELECT {ROW_IDS} - i, 1, 'projects/row/' || i || '.sb3', 65536, 'none', 'row-' || (i / {PROJECTS_OF_ONE}),
            {moment} FROM n;
        {numbers} INSERT INTO project_groups (project_id, group_id, published_at)
          SELECT {ROW_IDS} - i, {ROW_IDS} - i / {PROJECTS_OF_ONE} / {CLASS_SIZE}, {moment} FROM n
          WHERE i % {SHARED_EVERY} = 0;
        {numbers} INSERT INTO assets (id, asset_id, asset_type, data_format, size, md5, owner_id, file_path, created_at)
          SELECT {ROW_IDS} - i, 'row-' || i, 'costume', 'png', 16384, 'row-' || i, 'row-' || (i / {PROJECTS_OF_ONE}),
            'assets/row/' || i || '.png', {moment} FROM n;
        COMMIT;
        """,
        database,
    )
    # Work that the engine has postponed would fall into the next measurement.
    for statement in ("ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)") if database == "sqlite" else FINISH_POSTPONED:
        apply(host, statement, database)


def furnish(host: Host, database: str, owner: int, seen_by: int) -> None:
    """Give a pupil projects, share as many with the class of another, and put something into that one's backpack."""
    moment, shared = "'2026-09-01 08:00:00'", f"id < {ROW_IDS} AND id >= {ROW_IDS - PROJECTS_OF_ONE}"
    class_of = f"(SELECT id FROM groups WHERE external_id = 'benchmark.{seen_by // CLASS_SIZE}')"
    apply(
        host,
        f"""
        {_numbers(1, PROJECTS_OF_ONE)} INSERT INTO projects
            (name, version, owner_id, created_at, updated_at, is_published)
          SELECT 'Own ' || i, 1, '{user(owner)}', {moment}, {moment}, false FROM n;
        UPDATE projects SET is_published = true WHERE {shared};
        INSERT INTO project_groups (project_id, group_id, published_at)
          SELECT id, {class_of}, {moment} FROM projects WHERE {shared};
        {_numbers(1, PROJECTS_OF_ONE)} INSERT INTO backpack_items
            (id, type, name, mime, body, thumbnail, owner_id, created_at, updated_at)
          SELECT 'benchmark-' || i, 'costume', 'Item ' || i, 'image/png', 'none', 'none', '{user(seen_by)}', {moment},
            {moment} FROM n;
        """,
        database,
    )


def forget(host: Host) -> None:
    """Remove the rows of a measurement from PostgreSQL, and their files."""
    folders = [hashlib.sha256(user(number).encode()).hexdigest()[:16] for number in range(MOST_PUPILS)]
    assets = host.sql("SELECT file_path FROM assets WHERE owner_id LIKE 'bench-%'").splitlines()
    paths = [*(f"{kind}/{folder}" for kind in ("projects", "thumbnails") for folder in folders), *assets]
    host.run(f"sh -c 'cd {FOLDER}/uploads && xargs --no-run-if-empty rm -rf'", "\n".join(paths).encode())
    theirs = "LIKE ANY (ARRAY['bench-%', 'row-%'])"
    projects = f"SELECT id FROM projects WHERE owner_id {theirs}"
    host.sql(
        f"""
        BEGIN;
        DELETE FROM project_groups WHERE project_id IN ({projects});
        DELETE FROM project_revisions WHERE project_id IN ({projects});
        DELETE FROM projects WHERE owner_id {theirs};
        DELETE FROM assets WHERE owner_id {theirs};
        DELETE FROM backpack_items WHERE owner_id {theirs};
        DELETE FROM user_groups WHERE user_id {theirs};
        DELETE FROM groups WHERE external_id LIKE ANY (ARRAY['benchmark.%', 'row.%']);
        DELETE FROM oauth_sessions WHERE user_id {theirs};
        DELETE FROM users WHERE id {theirs};
        COMMIT;
        """
    )
    # Deleted rows would slow down the next measurement.
    for statement in ("VACUUM FULL", *FINISH_POSTPONED):
        host.sql(statement)


def _numbers(first: int, last: int) -> str:
    return f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
