"""Refusals of preflight for the role `backup`: repository, password, retention, schedules and the failure command."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from conftest import ROOT
from preflight import backup

from scratch4school_host.settings import BackupSettings

RIGHT = {
    "inventory_hostname": "server",
    "host_data_directory": "/var/lib/scratch4school",
    "host_settings_directory": "/etc/scratch4school",
    "backup_directory": "/var/lib/scratch4school/backup",
    "backup_repository": "",
    "backup_password": "p" * 16,
    "backup_environment": {},
    "backup_ssh_key": "",
    "backup_ssh_known_hosts": "",
    "backup_keep_daily": 7,
    "backup_keep_weekly": 4,
    "backup_keep_monthly": 6,
    "backup_min_free_mb": 1000,
    "backup_schedule": "*-*-* 02:15",
    "backup_prune_schedule": "Sat *-*-* 04:00",
    "backup_check_schedule": "",
    "backup_drill_schedule": "Sun *-*-* 05:00",
    "backup_failure_command": "mail root",
    "backup_require_timers": True,
}
DEFAULT = "/var/lib/scratch4school/backup/repository"
NAS = "/mnt/nas"
GOOD = {"answers": True, "is_folder": True, "writable": True, "free_mb": 5000, "on_data_disk": False}


def of_settings(**changed: Any) -> list[str]:
    """Return the messages about right settings with some changed."""
    return [message for rule in backup.RULES.settings_rules for message in rule({**RIGHT, **changed})]


def of_host(
    folder: dict[str, Any] | None = None, survey: dict[str, Any] | None = None, **changed: Any
) -> dict[str, list[str]]:
    """Return refusals and warnings, where `/mnt/nas` is as `folder` says."""
    surveyed = {"calendars": {}, "programs": {}, "folders": {NAS: folder or GOOD}, **(survey or {})}
    settings = {**RIGHT, **changed}
    return {
        "refused": [said for rule in backup.RULES.host_rules for said in rule(settings, surveyed)],
        "warned": [said for rule in backup.RULES.host_warnings for said in rule(settings, surveyed)],
    }


def test_right_settings_are_accepted() -> None:
    """The default is a folder of the host."""
    assert of_settings() == []
    assert of_host() == {"refused": [], "warned": []}


# ---- where backups go


@pytest.mark.parametrize(
    "repository",
    [
        NAS,
        "/mnt/nas/scratch4school",
        "/srv/my backups",
        DEFAULT,
        f"{DEFAULT}/2026",
        "s3:https://s3.example/bucket",
        "rest:https://user@host/path",
        "azure:container:/path",
        "b2:bucket",
        "swift:container:/path",
    ],
)
def test_repository_of_a_known_kind_is_accepted(repository: str) -> None:
    """A folder of the host, such as a mounted disk, or an address as restic writes it."""
    assert of_settings(backup_repository=repository) == []


@pytest.mark.parametrize("repository", ["???", "nas/backups", "ftp://nas/backups", "sftp:", "local:/srv", 5])
def test_invalid_repository_is_refused(repository: object) -> None:
    """With all three ways to write one."""
    (said,) = of_settings(backup_repository=repository)
    assert said.startswith("backup_repository is ")
    for part in (
        "the whole path of a folder of the server, such as /mnt/nas",
        "sftp:user@host:/path",
        "leave it unset",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("repository", "write"),
    [
        ("/mnt/nas/", "such as /mnt/nas,"),
        ("//mnt//nas", "such as /mnt/nas,"),
        ("/mnt/../srv/x", "such as /srv/x,"),
        ("/mnt/./nas", "such as /mnt/nas,"),
        ("/mnt/a,b", ""),
        ('/mnt/"a"', ""),
        ("/mnt/a\nb", ""),
        ("/", ""),
    ],
)
def test_path_that_is_not_plain_is_refused(repository: str, write: str) -> None:
    """With the plain one where there is one. A comma would end the path in Docker's --mount."""
    (said,) = of_settings(backup_repository=repository)
    assert said.startswith("backup_repository is ")
    assert "write the whole path of a folder" in said
    assert write in said
    assert ("such as" in said) is bool(write)


@pytest.mark.parametrize(
    ("repository", "relation"),
    [
        ("/var/lib/scratch4school/uploads/backups", "is in /var/lib/scratch4school,"),
        ("/var/lib/scratch4school", "is in /var/lib/scratch4school,"),
        ("/var/lib/scratch4school/backup/repository2", "is in /var/lib/scratch4school,"),
        ("/etc/scratch4school/backups", "is in /etc/scratch4school,"),
        ("/var/lib", "contains /var/lib/scratch4school,"),
        ("/etc", "contains /etc/scratch4school,"),
    ],
)
def test_folder_of_scratch4school_is_refused(repository: str, relation: str) -> None:
    """The sweep, a restore or the role would remove backups there; only the default folder is for them."""
    (said,) = of_settings(backup_repository=repository)
    assert said.startswith(f"backup_repository is “{repository}”, which {relation}")
    assert said.endswith(f"such as /mnt/nas, or leave it unset to have {DEFAULT}.")


def test_folder_beside_that_of_scratch4school_is_accepted() -> None:
    """A name that begins alike is another folder."""
    assert of_settings(backup_repository="/var/lib/scratch4school-backups") == []


@pytest.mark.parametrize(
    ("repository", "folder", "chosen"),
    [
        ("", DEFAULT, ""),
        (DEFAULT, DEFAULT, ""),
        (f"{DEFAULT}/2026", f"{DEFAULT}/2026", ""),
        (f"{DEFAULT}2", f"{DEFAULT}2", f"{DEFAULT}2"),
        (NAS, NAS, NAS),
        ("s3:https://s3.example/bucket", "", ""),
    ],
)
def test_local_is_a_path_and_empty_is_the_default(repository: str, folder: str, chosen: str) -> None:
    """The role creates the default folder and those below it; another one is the sysadmin's."""
    settings = {**RIGHT, "backup_repository": repository}
    assert backup.folder(settings) == folder
    assert backup.chosen_folder(settings) == chosen


@pytest.mark.parametrize(
    ("repository", "created", "managed"),
    [
        ("", [DEFAULT], [DEFAULT]),
        (DEFAULT, [DEFAULT], [DEFAULT]),
        (f"{DEFAULT}/2026", [DEFAULT, f"{DEFAULT}/2026"], [DEFAULT, f"{DEFAULT}/2026"]),
        (f"{DEFAULT}2", [DEFAULT], [DEFAULT, f"{DEFAULT}2"]),
        (NAS, [DEFAULT], [DEFAULT, NAS]),
        ("s3:https://s3.example/bucket", [DEFAULT], [DEFAULT]),
    ],
)
def test_role_and_program_agree_with_preflight_about_the_folder(
    repository: str, created: list[str], managed: list[str]
) -> None:
    """The role gives the program an absolute path of a local repository. It creates only its own folders, and compares
    all of them with the recorded state."""
    loader = DataLoader()
    variables = dict(loader.load_from_file(str(ROOT / "roles/backup/vars/main.yml"), trusted_as_template=True))
    given = {"backup_repository": repository, "backup_directory": RIGHT["backup_directory"]}
    role = Templar(loader=loader, variables={**variables, **given})
    place = role.template(variables["__backup_place"])
    assert BackupSettings.is_local.fget(SimpleNamespace(repository=place)) is bool(backup.folder({**RIGHT, **given}))
    assert place == (backup.folder({**RIGHT, **given}) or repository)
    assert [path.rstrip("/") for path in role.template(variables["__backup_created"])] == created
    places = role.template(variables["__backup_managed"]["places"])
    assert places == [RIGHT["backup_directory"], f"{RIGHT['backup_directory']}/cache", *managed]
    chosen = backup.chosen_folder({**RIGHT, **given})
    assert not chosen or (chosen in places and chosen not in created)


def test_password_in_a_repository_is_refused_and_not_shown() -> None:
    """Many outputs show the repository's address."""
    (said,) = of_settings(backup_repository="rest:https://school:hunter2@nas/x")
    assert said.startswith("backup_repository contains a password")
    assert "hunter2" not in said
    said = " ".join(of_settings(backup_repository="ftp://school:hunter2@nas/x"))
    assert "hunter2" not in said


@pytest.mark.parametrize(("key", "hosts"), [("", ""), ("key", ""), ("", "nas ssh-ed25519 AAAA")])
def test_sftp_without_a_key_is_refused(key: str, hosts: str) -> None:
    """Both are named, with where they come from."""
    repository = {"backup_repository": "sftp:u@nas:/x", "backup_ssh_key": key, "backup_ssh_known_hosts": hosts}
    (said,) = of_settings(**repository)
    assert said.startswith("backup_repository is reached by SFTP: set backup_ssh_key")
    complete = {**repository, "backup_ssh_key": "key", "backup_ssh_known_hosts": "nas ssh-ed25519 AAAA"}
    assert of_settings(**complete) == []


def test_survey_looks_at_a_chosen_folder_alone() -> None:
    """The default one is created by the role, and one elsewhere is not on the host."""
    assert backup.questions({**RIGHT, "backup_repository": NAS})["folders"] == [
        {"path": NAS, "user": 10005, "group": 10000}
    ]
    for repository in ("", DEFAULT, f"{DEFAULT}/2026", "s3:https://s3.example/bucket"):
        assert backup.questions({**RIGHT, "backup_repository": repository})["folders"] == []


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    ("folder", "parts"),
    [
        ({"is_folder": False}, ["there is no such folder on server", "`install -d -o 10005 -g root -m 0700 /mnt/nas`"]),
        ({"writable": False}, ["cannot write to it on server", "mount it", "`chown 10005 /mnt/nas`", "uid=10005"]),
        (
            {"free_mb": 999},
            ["Only 999 MB are free", "/mnt/nas on server", "backup_min_free_mb is 1000", "Free some disk space"],
        ),
        ({"answers": False}, ["does not answer on server"]),
    ],
    ids=["missing", "not writable", "full", "silent"],
)
def test_folder_that_cannot_take_backups_is_refused_or_warned_of(
    folder: dict[str, Any], parts: list[str], required: bool
) -> None:
    """Refused where settings are written; a rollback must not fail because a NAS is off. With what to type."""
    said = of_host({**GOOD, **folder}, backup_repository=NAS, backup_require_timers=required)
    (message,) = said["refused" if required else "warned"]
    assert said["warned" if required else "refused"] == []
    assert "backup_repository" in message
    for part in parts:
        assert part in message


def test_path_with_a_space_is_quoted_where_it_is_to_be_typed() -> None:
    """The command is copied into a shell."""
    path = "/srv/my backups"
    survey = {"folders": {path: {**GOOD, "is_folder": False}}}
    (said,) = of_host(survey=survey, backup_repository=path)["refused"]
    assert f"-m 0700 '{path}'`" in said


def test_folder_on_the_disk_of_the_school_is_warned_of() -> None:
    """By the device, whatever the folder is called: its own disk may not be mounted."""
    said = of_host({**GOOD, "on_data_disk": True}, backup_repository=NAS)
    assert said["refused"] == []
    (message,) = said["warned"]
    assert message.startswith("backup_repository is /mnt/nas, which is on the same disk as the school's data on server")
    assert of_host({**GOOD, "on_data_disk": False}, backup_repository=NAS)["warned"] == []
    # One message about a disk that is not mounted is enough.
    assert of_host({**GOOD, "on_data_disk": True, "writable": False}, backup_repository=NAS)["warned"] == []


def test_default_folder_is_not_warned_of() -> None:
    """It lies on that disk by nature, and the documentation says so."""
    assert of_host({**GOOD, "on_data_disk": True}) == {"refused": [], "warned": []}


# ---- password, retention, environment


@pytest.mark.parametrize("password", ["short", "", "p" * 15])
def test_short_password_is_refused_and_not_shown(password: str) -> None:
    """It can be guessed."""
    assert of_settings(backup_password=password) == [
        "backup_password must have at least 16 characters; leave it unset to have one generated."
    ]


def test_retention_of_nothing_is_refused() -> None:
    """One of the three is enough."""
    nothing = dict.fromkeys(("backup_keep_daily", "backup_keep_weekly", "backup_keep_monthly"), 0)
    (said,) = of_settings(**nothing)
    assert "are all 0, so no backup would be kept" in said
    assert of_settings(**{**nothing, "backup_keep_monthly": 1}) == []


@pytest.mark.parametrize("name", ["A B", "1A", "", "A-B", 5])
def test_name_that_no_environment_variable_has_is_refused(name: object) -> None:
    """Its value is a secret and is not shown."""
    (said,) = of_settings(backup_environment={"AWS_ACCESS_KEY_ID": "x", name: "hunter2"})
    assert said.startswith(f"backup_environment has the name “{name}”")
    assert "hunter2" not in said


# ---- what only the host can judge


def test_survey_reads_schedules_and_programs() -> None:
    """An empty hour is never, and systemd is not asked about it."""
    asked = backup.questions({**RIGHT, "backup_failure_command": "cat | mail root"})
    assert asked["calendars"] == ["*-*-* 02:15", "Sat *-*-* 04:00", "Sun *-*-* 05:00"]
    assert asked["programs"] == ["cat", "mail"]


@pytest.mark.parametrize("required", [True, "true", False, "false"])
def test_schedule_that_systemd_does_not_read_is_refused_or_warned_of(required: object) -> None:
    """All of them at once, as `backup_require_timers` says."""
    wrong = {"backup_schedule": "at night", "backup_drill_schedule": "Sunday, early", "backup_check_schedule": ""}
    survey = {"calendars": {"at night": "Failed to parse", "Sunday, early": "it lies in the past"}}
    said = of_host(survey=survey, backup_require_timers=required, **wrong)
    messages = said["refused" if required in (True, "true") else "warned"]
    assert sum(map(len, said.values())) == len(messages) == 2
    assert messages[0] == (
        "backup_schedule is “at night”, which systemd on server does not read as a time: Failed to parse. "
        'Write it such as "*-*-* 02:15" or "Sat *-*-* 04:00", or "" for never.'
    )
    assert messages[1].startswith("backup_drill_schedule is “Sunday, early”")


def test_failure_command_without_its_program_is_refused() -> None:
    """A program that was not looked for is not refused."""
    survey = {"programs": {"maill": False, "cat": True}}
    said = of_host(survey=survey, backup_failure_command="cat | maill root; logger told")
    assert said["refused"] == [
        "backup_failure_command runs “maill”, and there is no such program on server. Install it there, or write "
        "another command."
    ]


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ("mail -s Scratch4School admin@my-school.example", ["mail"]),
        ("/usr/local/bin/tell", ["/usr/local/bin/tell"]),
        ("cat | mail root; logger told & wait", ["cat", "mail", "logger", "wait"]),
        ("command -v mail >/dev/null && mail root || logger told", []),
        ("case $X in a) mail root;; esac", []),
        ("(cat; echo end) | mail root | cat", ["cat", "echo", "mail"]),
        ("TO=admin URL='https://x' curl -d @- https://ntfy.example", ["curl"]),
        ("FROM=me", []),
        ("echo 'a | b; c' | mail", ["echo", "mail"]),
        ('mail -s "on $(hostname)" root', ["mail"]),
        ("mail -s $(hostname) root", ["mail", "hostname"]),
        ("$TELL now", []),
        ("${TELL} now | cat", ["cat"]),
        ("`which mail` root", []),
        ("~/bin/tell", []),
        ("/opt/tell* now", []),
        ("mail root 2>&1 | tee log", ["mail", "tee"]),
        ("mail root > /dev/null 2>&1", ["mail"]),
        ("mail root >&2; true", ["mail", "true"]),
        ("sleep $((2+2)); mail", ["sleep", "mail"]),
        ("[ -s /etc/to ] && mail", []),
        ("my-\\ tool x", ["my- tool"]),
        ("mail 'root", []),
        ('mail "root', []),
        ("mail \\", []),
        ("", []),
        ("   ", []),
        (None, []),
    ],
    ids=str,
)
def test_command_programs_are_what_a_shell_would_start(command: object, programs: list[str]) -> None:
    """The first word of each part, once; what the shell works out, or cannot read, is not looked for."""
    assert backup.command_programs(command) == programs


# ---- a restore


FACTS = {"id": "3f2a1b00", "school": "https://scratch.school.de", "refusal": ""}


def test_backup_of_this_school_is_restored() -> None:
    """Also one whose restore was interrupted: it is completed."""
    assert backup.restore_refusal(FACTS, FACTS["school"], False) == ""
    assert backup.restore_refusal({**FACTS, "refusal": "half"}, FACTS["school"], False, interrupted=FACTS["id"]) == ""


def test_other_backup_while_a_restore_is_interrupted_is_refused() -> None:
    """With both ways out."""
    said = backup.restore_refusal(FACTS, FACTS["school"], False, interrupted="99")
    assert re.search(r"-e backup=99 -e confirm=99\), or undo it with -e undo=true\.$", said)


def test_refusal_of_the_program_on_the_host_is_passed_on() -> None:
    """It knows the backup."""
    assert backup.restore_refusal({**FACTS, "refusal": "Too old."}, FACTS["school"], False) == "Too old."


@pytest.mark.parametrize(("allowed", "refused"), [(False, True), ("false", True), (True, False), ("true", False)])
def test_backup_of_another_school_is_refused_unless_allowed(allowed: object, refused: bool) -> None:
    """With what to type where the school moves."""
    said = backup.restore_refusal(FACTS, "https://other.de", allowed)
    assert bool(said) is refused
    assert not refused or said.endswith("add -e allow_foreign=true.")


SETTINGS_FILE = "/etc/scratch4school/host/backup.json"
REQUEST = {"target": FACTS["id"], "undo": False, "confirmed": "", "settings": SETTINGS_FILE}
UNDO = {**REQUEST, "target": "", "undo": "true"}
SURVEY: dict[str, Any] = {"files": {SETTINGS_FILE: True}, "maintenance": {}}
LIVE = {"restoring": {"step": "live", "snapshot": "99"}}


@pytest.mark.parametrize(
    ("known", "interrupted"),
    [
        *(({"restoring": {"step": step, "snapshot": "99"}}, "99") for step in ("maintenance", "out", "in", "live")),
        *(({"restoring": {"step": step, "snapshot": "99"}}, "") for step in ("fetching", "loaded", "discarding")),
        ({"restoring": {}}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_restore_that_replaced_data_is_interrupted(known: dict[str, Any], interrupted: str) -> None:
    """Before maintenance mode nothing was replaced; while data is discarded, the restore is committed."""
    assert backup.interrupted_restore(known) == interrupted
    said = backup.interrupted_restore_refusal(known, "server")
    assert bool(said) is bool(interrupted)
    assert not said or said.startswith(
        "A restore of backup 99 on server was interrupted. Run it again (restore.yml -e backup=99 -e confirm=99), or "
        "undo it with restore.yml -e undo=true."
    )


@pytest.mark.parametrize(
    ("request_", "known", "survey", "refusal"),
    [
        (REQUEST, {}, {}, ""),
        ({**REQUEST, "undo": "false"}, LIVE, {}, ""),
        ({**UNDO, "target": 5}, {}, {}, "Type either -e backup=<id> to restore a backup, or -e undo=true"),
        (REQUEST, {}, {"files": {SETTINGS_FILE: False}}, "server cannot create backups yet. Run provision.yml"),
        (UNDO, {}, {"files": {SETTINGS_FILE: False}}, "server cannot create backups yet. Run provision.yml"),
        (UNDO, {}, {}, "There is no interrupted restore on server, so there is nothing to undo."),
        # An undo was interrupted at its last step.
        (UNDO, {}, {"maintenance": {"reason": "restore.yml"}}, ""),
        (UNDO, {"restoring": {"step": "out", "snapshot": "99"}}, {}, ""),
        (UNDO, LIVE, {}, "Nothing was changed. Backup 99 is live on server, and maintenance mode has ended;"),
        ({**UNDO, "confirmed": "98"}, LIVE, {}, "Nothing was changed. Backup 99 is live on server"),
        ({**UNDO, "confirmed": 99}, LIVE, {}, ""),
        # Pupils have saved nothing yet.
        (UNDO, LIVE, {"maintenance": {"reason": "restore.yml"}}, ""),
    ],
)
def test_impossible_request_for_a_restore_is_refused(
    request_: dict[str, Any], known: dict[str, Any], survey: dict[str, Any], refusal: str
) -> None:
    """As the command line passes it: a number may be the id of a backup."""
    said = backup.restore_request_refusal(request_, known, {**SURVEY, **survey}, "server")
    assert said.startswith(refusal)
    assert bool(said) is bool(refusal)


def test_undo_that_discards_saves_is_refused_with_both_ways_out() -> None:
    """Complete the restore, or confirm the undo."""
    said = backup.restore_request_refusal(UNDO, LIVE, SURVEY, "server")
    assert "run it again with -e backup=99 -e confirm=99." in said
    assert said.endswith("To undo it and discard those saves, type -e undo=true -e confirm=99.")


CONTENTS = {
    **FACTS,
    "time": "2026-11-28T16:50:01Z",
    "kind": "nightly",
    "rows": 7,
    "files": 3,
    "schema": "0004",
    "release": "abc",
    "empty": False,
    "losses": ["2 projects"],
}


@pytest.mark.parametrize(
    ("contents", "lines"),
    [
        ({}, ["What would be lost:", "- 2 projects"]),
        ({"losses": []}, ["What would be lost:", "- nothing that was added since"]),
        ({"empty": True}, ["This host is empty; nothing can be lost."]),
    ],
)
def test_prospect_of_a_restore_names_the_backup_and_the_losses(contents: dict[str, Any], lines: list[str]) -> None:
    """Before the sysadmin confirms it."""
    first, *others = backup.restore_prospect({**CONTENTS, **contents})
    assert first == "Backup 3f2a1b00 of 2026-11-28 16:50 UTC (nightly): 7 rows, 3 files; schema 0004, release abc."
    assert others == lines


@pytest.mark.parametrize(
    ("empty", "effect"),
    [
        (False, "The live data on server would be replaced by backup 3f2a1b00."),
        (True, "server is empty, and backup 3f2a1b00 would be restored to it."),
    ],
)
def test_restore_without_its_confirmation_is_refused(empty: bool, effect: str) -> None:
    """On an empty host too, because it may only look empty."""
    contents = {**CONTENTS, "empty": empty}
    assert backup.confirmation_refusal(contents, FACTS["id"], "server") == ""
    for confirmed in ("", "latest", "3f2a1b0"):
        assert backup.confirmation_refusal(contents, confirmed, "server") == (
            f"Nothing was changed. {effect} To do that, type restore.yml -e backup=3f2a1b00 -e confirm=3f2a1b00."
        )


def test_confirmation_that_is_a_number_is_accepted() -> None:
    """An id may have digits only."""
    assert backup.confirmation_refusal({**CONTENTS, "id": "12345678"}, 12345678, "server") == ""


def test_password_of_the_host_is_compared_without_its_line_end() -> None:
    """Another one is refused, and neither is shown."""
    encoded = base64.b64encode(b"correct horse battery\n").decode()
    assert backup.password_refusal(encoded, "correct horse battery", "/etc/backup", "server") == ""
    said = backup.password_refusal(encoded, "another horse", "/etc/backup", "server")
    assert said.startswith("backup_password is not the password with which the backups of server are encrypted.")
    assert "/etc/backup/password on the server" in said
    assert "horse" not in said
