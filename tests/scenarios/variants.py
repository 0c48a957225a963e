"""Other releases than this checkout's: copies of it with one small edit each, to be deployed to the lab's hosts.

Each is a release that a school could be handed one day. Only the first three may ever serve to the end; none loses a
save while it serves, so that a lesson can go on meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = Path("docker") / "app" / "src" / "scratch4school"
VERSIONS = APP / "migrations" / "versions"

REVISION = '''"""{sentence}"""

import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = "{former}"
branch_labels = None
depends_on = None

kind = "expand"


def upgrade() -> None:
{steps}


def downgrade() -> None:
    raise NotImplementedError
'''


def good(copy: Path) -> None:
    """Differs, and in nothing that anybody could notice."""
    _append(copy / APP / "clock.py", "# A rehearsal's release.\n")


def never_built(copy: Path) -> None:
    """As good, and no other scenario deploys it: its image is on no host yet."""
    _append(copy / APP / "clock.py", "# Another rehearsal's release.\n")


def another_pooler(copy: Path) -> None:
    """The application is this checkout's, and the image of PgBouncer is another."""
    _append(copy / "docker" / "pgbouncer" / "Dockerfile", 'LABEL rehearsal="another PgBouncer"\n')


def does_not_start(copy: Path) -> None:
    """Needs a module that nobody put into the image, and only the server does."""
    _append(copy / APP / "gunicorn_conf.py", "import scratch4school.forgotten  # noqa\n")


def never_ready(copy: Path) -> None:
    """Starts, and says that it cannot serve."""
    _replace(copy / APP / "health.py", "problems: list[str] = []", 'problems: list[str] = ["rehearsal: never ready"]')


def fails_verification(copy: Path) -> None:
    """Serves as ever, but a refused save is told the wrong version; the class does not believe it and looks itself."""
    _replace(copy / APP / "project_answers.py", "version=current.version,", "version=conflict.base,")


def breaks_migration(copy: Path) -> None:
    """Its migration makes a table and then asks for the impossible."""
    _add_revision(
        copy,
        "A rehearsal: breaks after half of it.",
        'op.create_table("rehearsal", sa.Column("id", sa.Integer, primary_key=True))',
        'op.add_column("rehearsal", sa.Column("id", sa.Integer))',
    )


def slow_lock(copy: Path) -> None:
    """Its migration needs the table `projects` to itself for a moment."""
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
    # What was deleted and not committed yet is listed too.
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
    assert old in text, f"{file.name} has changed; the variant has to be written anew"
    file.write_text(text.replace(old, new))


def _add_revision(copy: Path, sentence: str, *steps: str) -> None:
    former = max(path.name[:4] for path in (copy / VERSIONS).glob("[0-9]*.py"))
    number = f"{int(former) + 1:04}"
    lines = "\n".join(f"    {step}" for step in steps)
    text = REVISION.format(sentence=sentence, number=number, former=former, steps=lines)
    (copy / VERSIONS / f"{number}_rehearsal.py").write_text(text)
