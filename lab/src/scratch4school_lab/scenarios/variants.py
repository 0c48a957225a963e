"""Other releases than this checkout's: copies of it with one small edit each, to be deployed to lab hosts.

Only `good`, `never_built` and `another_pooler` can stay live; the others fail at some phase. None loses a save while it
is live, so that a class can go on meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..checkout import ROOT

APP = Path("docker") / "app" / "src" / "scratch4school"
VERSIONS = APP / "database" / "migrations" / "versions"

REVISION = '''"""{title}"""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{previous}"
branch_labels = None
depends_on = None

kind = "expand"


def upgrade() -> None:
{steps}


def downgrade() -> None:
    raise NotImplementedError
'''


def good(copy: Path) -> None:
    """Differs in a comment only."""
    _append(copy / APP / "clock.py", "# A rehearsal's release.\n")


def never_built(copy: Path) -> None:
    """Differs in another comment; no other scenario deploys it, so no host has its image yet."""
    _append(copy / APP / "clock.py", "# Another rehearsal's release.\n")


def another_pooler(copy: Path) -> None:
    """Has this checkout's application and another image of PgBouncer."""
    _append(copy / "docker" / "pgbouncer" / "Dockerfile", 'LABEL rehearsal="another PgBouncer"\n')


def does_not_start(copy: Path) -> None:
    """The server, and nothing else, imports a module that the image does not have."""
    _append(copy / APP / "gunicorn_conf.py", "import scratch4school.forgotten  # noqa\n")


def never_ready(copy: Path) -> None:
    """Starts, and reports that it is not ready."""
    _replace(
        copy / APP / "operations" / "health_routes.py",
        "problems: list[str] = []",
        'problems: list[str] = ["rehearsal: never ready"]',
    )


def fails_verification(copy: Path) -> None:
    """Works, but answers a refused save with the wrong version. The class is not misled: it reads the project again."""
    _replace(copy / APP / "projects" / "project_responses.py", "version=current.version,", "version=conflict.base,")


def breaks_migration(copy: Path) -> None:
    """Its migration creates a table and then adds a column that the table already has."""
    _add_revision(
        copy,
        "A rehearsal: breaks after half of it.",
        'op.create_table("rehearsal", sa.Column("id", sa.Integer, primary_key=True))',
        'op.add_column("rehearsal", sa.Column("id", sa.Integer))',
    )


def slow_lock(copy: Path) -> None:
    """Its migration needs an exclusive lock on the table `projects` for a moment."""
    _add_revision(
        copy, "A rehearsal: alters projects.", 'op.add_column("projects", sa.Column("rehearsal", sa.Integer))'
    )


def make(folder: Path, edit: Callable[[Path], None]) -> Path:
    """Copy this checkout, as git knows it, into a folder below `folder` and edit it; returns the copy.

    The inventory is not copied: it stays the lab's.
    """
    copy = folder / edit.__name__
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # Git also lists files whose deletion is not committed yet.
    for name in filter(
        lambda name: (ROOT / name).is_symlink() or (ROOT / name).exists(), listed.stdout.split("\0")[:-1]
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    edit(copy)
    return copy


def _append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has changed; adapt the variant"
    file.write_text(text.replace(old, new))


def _add_revision(copy: Path, title: str, *steps: str) -> None:
    previous = max(path.name[:4] for path in (copy / VERSIONS).glob("[0-9]*.py"))
    number = f"{int(previous) + 1:04}"
    lines = "\n".join(f"    {step}" for step in steps)
    text = REVISION.format(title=title, number=number, previous=previous, steps=lines)
    (copy / VERSIONS / f"{number}_rehearsal.py").write_text(text)
