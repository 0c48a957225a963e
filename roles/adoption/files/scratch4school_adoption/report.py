"""What a look has found, in words: for the sysadmin's screen, and to be mailed."""

from __future__ import annotations

from typing import Any

from scratch4school_backup.base import megabytes

LISTED = 20


def lines(report: dict[str, Any]) -> list[str]:
    """The report as text, a line each."""
    rows, files = report["rows"], report["files"]
    said = [
        f"The old database is {rows['shape']}.",
        "Rows:  " + ", ".join(f"{count:,} {table}" for table, count in rows["rows"].items()),
        f"       {rows['sessions']['live']:,} logins are still good, {rows['sessions']['expired']:,} have expired",
        f"Files: {files['named']:,} named by rows, {files['there']:,} of them there ({megabytes(files['bytes'])}); "
        f"{len(files['orphans']):,} that no row names ({megabytes(files['orphan_bytes'])})",
    ]
    if files["default_picture"]:
        said.append("       and the school's own picture for projects without one, which comes over")
    changed = {
        table: (count, rows["become"][table]) for table, count in rows["rows"].items() if count != rows["become"][table]
    }
    said += [f"       {table}: {count:,} there, {become:,} come over" for table, (count, become) in changed.items()]
    said.append("What is wrong with it:" if _wrong(report) else "Nothing is wrong with it.")
    for one in rows["findings"]:
        said += _finding(one["count"], one["rule"], one["where"])
    missing = [f"{path} ({', '.join(one['by'][:3])})" for path, one in files["missing"].items()]
    if missing:
        said += _finding(len(missing), "files that rows name and that are not there; the rows come over so", missing)
    torn = [f"{path} ({', '.join(one['by'][:3])}): {one['why']}" for path, one in files["torn"].items()]
    if torn:
        said += _finding(len(torn), "files that are not whole; they come over as they are", torn)
    if files["orphans"]:
        rule = "files that no row names; they are kept in a folder beside the uploads, with a list"
        said += _finding(len(files["orphans"]), rule, files["orphans"])
    need = report["need"]
    said.append(
        f"It needs about {megabytes(need['bytes'])} on this host's disk, and {need['seconds']:.0f} s the first time, "
        "by how fast the old files can be read."
    )
    return said


def _wrong(report: dict[str, Any]) -> bool:
    files = report["files"]
    return bool(report["rows"]["findings"] or files["missing"] or files["torn"] or files["orphans"])


def _finding(count: int, rule: str, where: list[str]) -> list[str]:
    said = [f"- {count:,} {rule}"]
    said += [f"    {name}" for name in where[:LISTED]]
    if count > min(len(where), LISTED):
        said.append(f"    and {count - min(len(where), LISTED):,} more")
    return said
