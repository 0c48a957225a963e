"""Formats the result of an inspection as text, for the screen and for mail."""

from __future__ import annotations

from typing import Any

from ..progress import megabytes

LISTED = 20


def lines(report: dict[str, Any]) -> list[str]:
    """The lines of the report, from the facts of `importing.inspect`."""
    rows, files = report["rows"], report["files"]
    text = [
        f"The source database is {rows['shape']}.",
        "Rows:  " + ", ".join(f"{count:,} {table}" for table, count in rows["rows"].items()),
        f"       {rows['sessions']['live']:,} logins are still valid, {rows['sessions']['expired']:,} have expired",
        f"Files: {files['named']:,} named by rows, {files['there']:,} of them there ({megabytes(files['bytes'])}); "
        f"{len(files['orphans']):,} that no row names ({megabytes(files['orphan_bytes'])})",
    ]
    if files["default_picture"]:
        text.append("       and the school's own picture for projects without one, which is imported")
    changed = {
        table: (count, rows["become"][table]) for table, count in rows["rows"].items() if count != rows["become"][table]
    }
    text += [f"       {table}: {count:,} there, {become:,} imported" for table, (count, become) in changed.items()]
    text.append("Problems of the source:" if _is_wrong(report) else "The source has no problems.")
    for one in rows["findings"]:
        text += _finding(one["count"], one["rule"], one["where"])
    missing = [f"{path} ({', '.join(one['by'][:3])})" for path, one in files["missing"].items()]
    if missing:
        text += _finding(len(missing), "files that rows name and that are missing; the rows are imported", missing)
    torn = [f"{path} ({', '.join(one['by'][:3])}): {one['why']}" for path, one in files["torn"].items()]
    if torn:
        text += _finding(len(torn), "files that are not whole; they are imported as they are", torn)
    if files["orphans"]:
        rule = "files that no row names; they are kept in a folder beside the uploads, with a list"
        text += _finding(len(files["orphans"]), rule, files["orphans"])
    need = report["need"]
    text.append(
        f"The import needs about {megabytes(need['bytes'])} of this host's disk. Its first run takes about "
        f"{need['seconds']:.0f} s, estimated from the speed at which the files can be read."
    )
    return text


def _is_wrong(report: dict[str, Any]) -> bool:
    files = report["files"]
    return bool(report["rows"]["findings"] or files["missing"] or files["torn"] or files["orphans"])


def _finding(count: int, rule: str, where: list[str]) -> list[str]:
    text = [f"- {count:,} {rule}"]
    text += [f"    {name}" for name in where[:LISTED]]
    if count > min(len(where), LISTED):
        text.append(f"    and {count - min(len(where), LISTED):,} more")
    return text
