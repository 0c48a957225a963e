"""The promise of "expand": the previous release passes its own tests on the schema of this release.

So it works while our migrations run, and after a rollback. Its source comes from git. Its dependencies are those of
this checkout, which are close enough to its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scratch4school.database import schema

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SOURCE = HERE.parent / "src"
PREVIOUS = HERE / "previous" / "commit.txt"

# Test files of the previous release, by their names there, and why each says nothing about a common schema.
LEFT_OUT = {
    "test_migrations.py": "it is about that release's own migrations",
    "test_health.py": "it names the revision of the database",
    "test_previous_release.py": "it is about the release before that one",
    "test_config.py": "it uses no database",
    "test_files.py": "it uses no database",
    "test_logs.py": "it is about log messages",
    "test_front_page.py": "it is about a page outside the application's folder",
    "test_uploads.py": "it is about uploads before any row",
    "test_outages.py": "it is slow, with a database that is away",
    "test_verification.py": "it is slow, with the same statements as other tests",
    "test_fuzz.py": "it is slow, with requests that never reach a row",
}

BREAKING = """\
\"\"\"A column that the previous release does not know and would have to fill.\"\"\"

import sqlalchemy as sa
from alembic import op

revision = "{number:04}"
down_revision = "{head}"
kind = "expand"


def upgrade() -> None:
    with op.batch_alter_table("projects") as projects:
        projects.add_column(sa.Column("colour", sa.String(20), nullable=False))
"""


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application's folder of the previous release."""
    commit = PREVIOUS.read_text().splitlines()[-1]
    command = ["git", "-C", str(ROOT), "archive", commit, "docker/app"]
    archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        # A shallow clone, as of a CI machine, can fetch the rest.
        subprocess.run(["git", "-C", str(ROOT), "fetch", "--quiet", "--unshallow"], capture_output=True, check=False)
        archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        pytest.fail(
            f"The previous release, commit {commit}, is not in this clone; run `git fetch --unshallow`, or in a copy "
            "without git use a clone.",
            pytrace=False,
        )
    folder = tmp_path_factory.mktemp("previous")
    subprocess.run(["tar", "--extract", "--directory", folder], input=archived.stdout, check=True)
    return folder / "docker" / "app"


def run_tests(previous: Path, source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the previous release on databases that `source` upgraded further."""
    # This run must not influence that one; pytest-xdist, for example, tells its workers their number by such variables.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))}
    environment |= {"PYTHONPATH": str(HERE / "previous"), "NEW_SOURCE": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "on_new_schema", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=previous, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("other", ["sqlite", "postgresql"], ids=["postgresql", "sqlite"])
def test_previous_release_passes_its_own_tests_on_this_schema(previous: Path, other: str) -> None:
    """On each engine, all its tests that use rows."""
    files = sorted(path for path in previous.glob("tests/**/test_*.py") if path.name not in LEFT_OUT)
    ended = run_tests(previous, SOURCE, "-k", f"not {other}", *map(str, files))
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr
    assert f"The databases were at revision {schema.needed()}." in ended.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("other", ["sqlite", "postgresql"], ids=["postgresql", "sqlite"])
def test_breaking_revision_fails_its_tests(previous: Path, tmp_path: Path, other: str) -> None:
    """The test above fails for a migration that only claims to be an expand."""
    source = tmp_path / "src"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    number = int(schema.head()) + 1
    revision = source / "scratch4school" / "database" / "migrations" / "versions" / f"{number:04}_breaking.py"
    revision.write_text(BREAKING.format(number=number, head=schema.head()))
    ended = run_tests(previous, source, "-k", f"not {other}", "--maxfail=1", "tests/test_projects.py")
    assert ended.returncode == 1, ended.stdout[-6000:] + ended.stderr
    assert "colour" in ended.stdout
    assert f"The databases were at revision {number:04}." in ended.stdout
