"""The logic of benchmarks/: kinds of statements, scripts for pgbench, ratios."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from _bench import classroom, cli, floors, growth, playbooks  # noqa: E402
from _bench.host import BenchmarkFailed, Host, Meter  # noqa: E402
from _bench.results import Results  # noqa: E402
from _bench.statements import Statement  # noqa: E402

MACHINE = {"processor": "a", "commit": "abc1234"}


def statements(*texts: str) -> list[Statement]:
    """Statements with these texts, as the log gives them."""
    return [Statement(1, 0.1, text) for text in texts]


class TestStatements:
    """Statements of one kind differ in their values alone."""

    def test_statements_with_other_values_are_one_kind(self) -> None:
        one, other = statements(
            "SELECT a\nFROM users WHERE id = 'ada''s' AND at > '2026-11-26T08:00:00'::timestamp LIMIT 1",
            "SELECT a FROM users WHERE id = 'bob' AND at > '2026-01-01T00:00:00'::timestamp LIMIT 20",
        )
        assert one.kind == other.kind == "SELECT a FROM users WHERE id = ? AND at > ? LIMIT ?"

    def test_save_becomes_pgbench_script_of_same_statements(self) -> None:
        told = floors.script(
            statements(
                "BEGIN; SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = '15s'",
                "UPDATE projects SET version=(projects.version + 1) WHERE projects.id = 7 RETURNING projects.id",
                "INSERT INTO project_revisions (project_id, version, file_path) VALUES (7, 12, 'a')",
                "COMMIT",
            )
        )
        assert told.splitlines() == [
            "BEGIN\\; SET LOCAL lock_timeout = '3s'\\; SET LOCAL statement_timeout = '15s';",
            "UPDATE projects SET version=(projects.version + 1) WHERE projects.id = 7 RETURNING projects.id \\gset p_",
            "INSERT INTO project_revisions (project_id, version, file_path) VALUES (:p_id, :p_version, 'a');",
            "COMMIT;",
        ]

    def test_statements_with_other_lists_are_one_kind(self) -> None:
        one, other = statements(
            "SELECT a WHERE b IN (1, 2, 3) AND c = NULL", "SELECT a WHERE b IN ('x', 'y') AND c = 1"
        )
        assert one.kind == other.kind == "SELECT a WHERE b IN (?) AND c = ?"

    def test_asset_becomes_new_asset_in_pgbench_script(self) -> None:
        md5 = "0123456789abcdef0123456789abcdef"
        told = floors.script(
            statements(
                f"SELECT assets.file_path FROM assets WHERE assets.md5 = '{md5}'",
                f"INSERT INTO assets (md5, file_path) VALUES ('{md5}', 'assets/{md5}.png') ON CONFLICT DO NOTHING",
            )
        )
        new = "lpad(:asset::text, 32, '0')"
        assert told.splitlines() == [
            floors.ASSET,
            f"SELECT assets.file_path FROM assets WHERE assets.md5 = {new};",
            f"INSERT INTO assets (md5, file_path) VALUES ({new}, 'assets/{md5}.png') ON CONFLICT DO NOTHING;",
        ]

    def test_changed_revision_statement_is_refused(self) -> None:
        with pytest.raises(BenchmarkFailed, match="reads differently"):
            floors.script(statements("INSERT INTO project_revisions (file_path, version) VALUES ('a', 1)"))

    def test_plan_with_sequential_scan_names_table(self) -> None:
        plan = "Limit\n  ->  Seq Scan on projects (actual rows=1)\n  ->  Index Scan using a on users"
        assert growth.whole_tables(plan) == ["projects"]
        assert growth.whole_tables("Index Scan using projects_pkey on projects") == []


class TestMeter:
    """CPU between two moments, from counters that are read several times a second."""

    def test_cpu_between_readings_is_interpolated_and_summed_by_part(self) -> None:
        meter = Meter(Host())
        meter._lines = [
            {"at": 0.0, "scratch4school-proxy": 0.0, "scratch4school-app-blue": 1.0, "scratch4school-bench-app": 0.0},
            {"at": 1.0, "scratch4school-proxy": 0.2, "scratch4school-app-blue": 1.0, "scratch4school-bench-app": 0.4},
            {"at": 2.0, "scratch4school-proxy": 0.6, "scratch4school-app-blue": 1.2, "scratch4school-bench-app": 1.0},
        ]
        used = meter.between(0.5, 1.5)
        assert used == pytest.approx({"proxy": 0.3, "app": 0.1 + 0.5, "all": 0.9})


class TestFigures:
    """The rows of the tables."""

    def test_ratios_compare_same_number_of_users(self) -> None:
        figures = {"p50_ms": 1.0, "p99_ms": 10.0, "all_ms": 2.0}
        rows = [
            {"way": classroom.WAY, "users": 10, "requests/s": 1.0, **figures},
            {"way": classroom.WAY, "users": 100, "requests/s": 500.0, **figures},
            {"way": classroom.ORIGINAL, "users": 100, "requests/s": 100.0, **figures, "p99_ms": 40.0},
        ]
        assert classroom.ratios(rows, 100) == [
            {"ours over": classroom.ORIGINAL, "requests/s": 5.0, "p50_ms": 1.0, "p99_ms": 0.25, "all_ms": 1.0}
        ]

    def test_measurement_runs_in_both_orders(self, capsys: pytest.CaptureFixture) -> None:
        seen: list[str] = []

        def work(name: str) -> dict[str, object]:
            seen.append(name)
            return {"requests/s": 100.0 * len(seen), "p50_ms": 1.0, "failed": 1, "broken": 0}

        measured = classroom.in_both_orders(["a", "b"], work)
        assert seen == ["a", "b", "b", "a"]
        assert measured["a"] == {"requests/s": 250.0, "p50_ms": 1.0, "failed": 2, "broken": 0, "spread_%": 120}
        assert measured["b"]["spread_%"] == 40
        assert capsys.readouterr().out.count("requests/s") == 4

    def test_profile_has_slowest_tasks_by_median(self) -> None:
        said = "RECAP\n\nimages : Build app ------- 20.50s\nrelease : Drain ---- 2.00s\nimages : Build app --- 1.00s\n"
        assert playbooks.tasks(said) == {"images : Build app": 21.5, "release : Drain": 2.0}
        runs = [playbooks.tasks(said), {"images : Build app": 1.0, "release : Drain": 3.0}, {"release : Drain": 2.5}]
        row = playbooks.profile("deploy", runs)
        assert row["tasks"] == 2
        assert row["1"] == "2.5 release : Drain"

    def test_playbook_row_has_median(self) -> None:
        row = playbooks.times_of("drill", [3.0, 1.0, 2.0])
        assert row == {"playbook": "drill", "median_s": 2.0, "least": 1.0, "most": 3.0, "runs": 3}

    def test_part_measured_again_replaces_previous_figures(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        Results(tmp_path, MACHINE).table("one", [{"a": 1}])
        Results(tmp_path, MACHINE).table("two", [{"b": 2.0}], "A note.")
        Results(tmp_path, MACHINE).table("one", [{"a": 3}])
        written = json.loads((tmp_path / "results.json").read_text())
        assert written["tables"] == {"one": [{"a": 3}], "two": [{"b": 2.0}]}
        assert re.search(
            r"A note\. Measured .* UTC, abc1234, lab hosts up: \d\.", (tmp_path / "tables.txt").read_text()
        )
        assert capsys.readouterr().out.count("one\n") == 2

    def test_every_plot_has_table_of_its_title(self) -> None:
        drawn = (ROOT / "benchmarks" / "_bench" / "draw.py").read_text()
        for title in (classroom.LOAD, floors.OPERATIONS, growth.GROWTH, playbooks.TIMES_TABLES):
            assert f'"{title}"' in drawn


class TestCommand:
    """The command as a person types it."""

    def test_help_lists_every_part(self) -> None:
        command = [ROOT / "benchmarks" / "run", "--help"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert all(f"\n  {part} " in said for part in cli.PARTS)

    def test_unknown_part_is_usage_error(self, capsys: pytest.CaptureFixture) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["nothing"])
        assert ended.value.code == 2
        assert "invalid choice" in capsys.readouterr().err
