"""Refusals of the role `backup`: repositories that cannot work, weak passwords, unreadable schedules."""

from __future__ import annotations

import base64
import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any

from scratch4school_host import times

from .rules import Messages, Questions, Rules, Settings, Survey
from .settings import is_true, memory, shown, text, whole_number

RULES = Rules(
    "backup",
    bounds={
        "backup_keep_daily": whole_number(0),
        "backup_keep_weekly": whole_number(0),
        "backup_keep_monthly": whole_number(0),
        "backup_check_percent": whole_number(1, 100),
        "backup_max_age": whole_number(0),
        "backup_min_free_mb": whole_number(0),
        "backup_niceness": whole_number(0, 19),
        "backup_upload_kib": whole_number(0),
        "backup_download_kib": whole_number(0),
        "backup_memory": memory(64),
        "backup_ssh_key": text(
            r"(\s*-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*)?",
            "the text of a private key, from -----BEGIN to -----END",
        ),
        "backup_ssh_known_hosts": text(r"(\S+ +\S+ +\S[\s\S]*)?", "the line that `ssh-keyscan <host>` prints"),
    },
)
SCHEDULES = ("backup_schedule", "backup_prune_schedule", "backup_check_schedule", "backup_drill_schedule")
# User and group as which restic runs in its container; see roles/backup.
USER, GROUP = 10005, 10000

_ELSEWHERE = re.compile(r"(sftp|s3|rest|azure|b2|swift):.+")
# A comma or a quotation mark would end the path in Docker's --mount.
_FOLDER = re.compile(r"(/[^/,\"\n]+)+")


def folder(settings: Settings) -> str:
    """The folder of the host that holds the repository: the one that is set, or the default; '' when it is elsewhere.

    Local is what begins with a slash, here, in roles/backup/vars and in the program on the host.
    """
    repository = str(settings["backup_repository"]) or default_folder(settings)
    return repository if repository.startswith("/") else ""


def default_folder(settings: Settings) -> str:
    """Where the repository lies when `backup_repository` is empty."""
    return f"{settings['backup_directory']}/repository"


def chosen_folder(settings: Settings) -> str:
    """A folder of the host that the sysadmin chose, such as a mounted disk; '' when the role creates the folder."""
    place = folder(settings)
    return "" if _is_in(place, default_folder(settings)) else place


def _is_in(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent.rstrip("/") + "/")


@RULES.refuses_settings
def password(settings: Settings) -> Messages:
    """A shorter one can be guessed."""
    if len(str(settings["backup_password"])) < 16:
        yield "backup_password must have at least 16 characters; leave it unset to have one generated."


@RULES.refuses_settings
def repository(settings: Settings) -> Messages:
    """A folder of the host or an address as restic writes it."""
    value = str(settings["backup_repository"])
    if not value or value.startswith("/"):
        return
    if not _ELSEWHERE.match(value):
        yield (
            f"backup_repository is {shown('backup_repository', value)}; write the whole path of a folder of the "
            "server, such as /mnt/nas, or an address as restic does, such as sftp:user@host:/path or "
            "s3:https://host/bucket, or leave it unset."
        )
    elif value.startswith("sftp:") and not (settings["backup_ssh_key"] and settings["backup_ssh_known_hosts"]):
        yield (
            "backup_repository is reached by SFTP: set backup_ssh_key (a private key without a passphrase) and "
            "backup_ssh_known_hosts (what `ssh-keyscan <host>` prints)."
        )


@RULES.refuses_settings
def repository_password(settings: Settings) -> Messages:
    """A password belongs into the environment: output and status name the repository."""
    if re.match(r".*://[^/@]*:[^/@]*@", str(settings["backup_repository"])):
        yield (
            "backup_repository contains a password, and many outputs show this address. Remove it from the address, "
            "and write it into backup_environment, for a REST server as RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD."
        )


@RULES.refuses_settings
def repository_folder(settings: Settings) -> Messages:
    """A whole path, and no folder that Scratch4School uses for something else."""
    place = folder(settings)
    if not place or place == default_folder(settings):
        return
    value = shown("backup_repository", place)
    if not _FOLDER.fullmatch(place) or posixpath.normpath(place) != place:
        plain = posixpath.normpath(f"/{place.lstrip('/')}")
        advice = f", such as {plain}" if _FOLDER.fullmatch(plain) else ""
        yield (
            f"backup_repository is {value}; write the whole path of a folder{advice}, without a slash at the end, `.`, "
            "`..`, a comma or a quotation mark."
        )
    elif not _is_in(place, default_folder(settings)):
        for ours in (settings["host_data_directory"], settings["host_settings_directory"]):
            if _is_in(place, ours) or _is_in(ours, place):
                where = f"is in {ours}" if _is_in(place, ours) else f"contains {ours}"
                yield (
                    f"backup_repository is {value}, which {where}, a folder of Scratch4School. Write a folder "
                    f"elsewhere, such as /mnt/nas, or leave it unset to have {default_folder(settings)}."
                )


@RULES.refuses_settings
def retention(settings: Settings) -> Messages:
    """At least one backup is kept."""
    if sum(int(settings[f"backup_keep_{span}"]) for span in ("daily", "weekly", "monthly")) == 0:
        yield (
            "backup_keep_daily, backup_keep_weekly and backup_keep_monthly are all 0, so no backup would be kept; "
            "set one of them to at least 1."
        )


@RULES.refuses_settings
def environment(settings: Settings) -> Messages:
    """Names that an environment can hold; values are secrets and are not looked at."""
    for name in settings["backup_environment"]:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
            yield (
                f"backup_environment has the name “{name}”, which cannot be the name of an environment variable; write "
                "letters, digits and _, and no digit first."
            )


@RULES.asks_host
def questions(settings: Settings) -> Questions:
    """Schedules for systemd to parse, programs that the failure command starts, and the folder that was chosen."""
    schedules = [str(settings[name]) for name in SCHEDULES]
    chosen = chosen_folder(settings)
    return {
        "calendars": [schedule for schedule in schedules if schedule],
        "programs": command_programs(settings["backup_failure_command"]),
        "folders": [{"path": chosen, "user": USER, "group": GROUP}] if chosen else [],
    }


# Refused where the settings of backups are written; elsewhere, as in a rollback, a warning.
_refuses_or_warns = RULES.refuses_host_if("backup_require_timers")


@_refuses_or_warns
def schedules(settings: Settings, survey: Survey) -> Messages:
    """systemd would never start a timer with such a schedule."""
    for name in SCHEDULES:
        schedule = str(settings[name])
        error = survey["calendars"].get(schedule, "") if schedule else ""
        if error:
            yield (
                f"{name} is “{schedule}”, which systemd on {settings['inventory_hostname']} does not read as a time: "
                f'{error}. Write it such as "*-*-* 02:15" or "Sat *-*-* 04:00", or "" for never.'
            )


@_refuses_or_warns
def failure_command(settings: Settings, survey: Survey) -> Messages:
    """Without its programs no failure of a backup would be reported."""
    for program in command_programs(settings["backup_failure_command"]):
        if not survey["programs"].get(program, True):
            yield (
                f"backup_failure_command runs “{program}”, and there is no such program on "
                f"{settings['inventory_hostname']}. Install it there, or write another command."
            )


@_refuses_or_warns
def chosen_folder_of_host(settings: Settings, survey: Survey) -> Messages:
    """A folder that was chosen is there, restic can write to it, and it has room."""
    path, host = chosen_folder(settings), settings["inventory_hostname"]
    if not path:
        return
    found = survey["folders"][path]
    if not found["answers"]:
        yield (
            f"backup_repository is {path}, which does not answer on {host}. If it is a share of another machine, "
            "start that machine. Otherwise write another repository."
        )
    elif not found["is_folder"]:
        yield (
            f"backup_repository is {path}, and there is no such folder on {host}. Mount the disk there, or type "
            f"`install -d -o {USER} -g root -m 0700 {shlex.quote(path)}` on {host}."
        )
    elif not found["writable"]:
        yield (
            f"backup_repository is {path}, and the user {USER}, as which backups are written, cannot write to it on "
            f"{host}. If a disk is to be mounted there, mount it. Otherwise type `chown {USER} {shlex.quote(path)}` on "
            f"{host}, or mount a CIFS share with the option uid={USER}."
        )
    elif found["free_mb"] < int(settings["backup_min_free_mb"]):
        yield (
            f"Only {found['free_mb']} MB are free for backup_repository in {path} on {host}; backup_min_free_mb is "
            f"{settings['backup_min_free_mb']}. Free some disk space, or write another folder."
        )


@RULES.warns_of_host
def same_disk(settings: Settings, survey: Survey) -> Messages:
    """By the device: a folder with another name may lie on the same disk, also because its own is not mounted."""
    path = chosen_folder(settings)
    if path and survey["folders"][path]["writable"] and survey["folders"][path]["on_data_disk"]:
        yield (
            f"backup_repository is {path}, which is on the same disk as the school's data on "
            f"{settings['inventory_hostname']}; when that disk fails, the backups are lost too. Mount another disk "
            "there, or name another server, such as sftp:user@host:/path."
        )


def restore_refusal(facts: Mapping[str, Any], school: str, allow_foreign: object, interrupted: str = "") -> str:
    """Why a backup is not restored here; '' when it may be. It runs after preflight, when the backup was inspected.

    :param facts: what the program on the host says of the backup: `id`, `school`, and its own `refusal`.
    :param interrupted: the backup of a restore that was interrupted; it may be completed.
    """
    completes = bool(interrupted) and facts["id"] == interrupted
    if interrupted and not completes:
        return (
            f"A restore of backup {interrupted} was interrupted. Run it again (-e backup={interrupted} "
            f"-e confirm={interrupted}), or undo it with -e undo=true."
        )
    if facts.get("refusal") and not completes:
        return str(facts["refusal"])
    if facts["school"] != school and not is_true(allow_foreign):
        return (
            f"Backup {facts['id']} is one of {facts['school']}, and this school is {school}. If the school moves here, "
            "add -e allow_foreign=true."
        )
    return ""


# Steps of a restore in which the live data is replaced, or was replaced and the restore is not committed.
_REPLACING = ("maintenance", "out", "in", "live")


def interrupted_restore(known: Mapping[str, Any]) -> str:
    """The backup of a restore that replaced live data and was neither committed nor undone; '' without one.

    :param known: what `scratch4schoolctl backup status --json` answered, of which `restoring` is read.
    """
    restoring = known.get("restoring") or {}
    return str(restoring["snapshot"]) if restoring.get("step") in _REPLACING else ""


def interrupted_restore_refusal(known: Mapping[str, Any], host: str) -> str:
    """Why a change other than a restore must wait; '' when no restore was interrupted."""
    backup = interrupted_restore(known)
    if not backup:
        return ""
    return (
        f"A restore of backup {backup} on {host} was interrupted. Run it again (restore.yml -e backup={backup} "
        f"-e confirm={backup}), or undo it with restore.yml -e undo=true. If that backup can no longer be reached, "
        "type `sudo scratch4schoolctl restore commit` on the server to keep what is live."
    )


def restore_request_refusal(
    request: Mapping[str, Any], known: Mapping[str, Any], survey: Mapping[str, Any], host: str
) -> str:
    """Why restore.yml cannot do what was asked for; '' when it can, or when the backup must be inspected first.

    :param request: `target`, `undo` and `confirmed` as typed, and `settings`, the path of the backups' settings.
    :param known: as for `interrupted_restore`; empty where the program is not installed.
    """
    undo, restoring = is_true(request["undo"]), known.get("restoring") or {}
    if undo and str(request["target"]):
        return (
            "Type either -e backup=<id> to restore a backup, or -e undo=true to undo an interrupted restore, but not "
            "both."
        )
    if not survey["files"][request["settings"]]:
        return f"{host} cannot create backups yet. Run provision.yml, then the same command again."
    # If only maintenance mode is left, an undo was interrupted at its last step.
    if undo and not restoring and not survey["maintenance"]:
        return f"There is no interrupted restore on {host}, so there is nothing to undo."
    # Maintenance mode ends when a release becomes live.
    was_live = restoring.get("step") == "live" and not survey["maintenance"]
    if undo and was_live and str(request["confirmed"]) != restoring["snapshot"]:
        backup = restoring["snapshot"]
        return (
            f"Nothing was changed. Backup {backup} is live on {host}, and maintenance mode has ended; undo would "
            f"discard what pupils have saved since. To complete the restore, run it again with -e backup={backup} "
            f"-e confirm={backup}. To undo it and discard those saves, type -e undo=true -e confirm={backup}."
        )
    return ""


def restore_prospect(facts: Mapping[str, Any]) -> list[str]:
    """The lines that describe a backup and what its restore would lose; `facts` as for `restore_refusal`."""
    first = (
        f"Backup {facts['id']} of {times.readable(facts['time'])} ({facts['kind']}): {facts['rows']} rows, "
        f"{facts['files']} files; schema {facts['schema']}, release {facts['release']}."
    )
    if facts["empty"]:
        return [first, "This host is empty; nothing can be lost."]
    losses = facts.get("losses") or ["nothing that was added since"]
    return [first, "What would be lost:", *(f"- {loss}" for loss in losses)]


def confirmation_refusal(facts: Mapping[str, Any], confirmed: object, host: str) -> str:
    """Why a restore waits for its confirmation; '' when the backup's id was typed twice.

    An empty host needs it too: a host may only look empty, and inspecting a backup must never replace anything.
    """
    backup = facts["id"]
    if str(confirmed) == backup:
        return ""
    effect = (
        f"{host} is empty, and backup {backup} would be restored to it."
        if facts["empty"]
        else f"The live data on {host} would be replaced by backup {backup}."
    )
    return f"Nothing was changed. {effect} To do that, type restore.yml -e backup={backup} -e confirm={backup}."


def password_refusal(encoded: str, password: object, folder: str, host: str) -> str:
    """Why this checkout cannot use the backups of the host; '' when it has their password.

    A checkout without the folder .secrets generates new secrets. With those, the application could not open its
    database, and the backup program could not open its repository.

    :param encoded: the file `password` of the `folder` on the host, in Base64.
    """
    if base64.b64decode(encoded).decode().strip() == str(password).strip():
        return ""
    return (
        f"backup_password is not the password with which the backups of {host} are encrypted. Copy the password from "
        f"{folder}/password on the server to the inventory (.secrets/backup_password, or vault.yml). Copy the other "
        "secrets from the control node that usually deploys this school. To start without the earlier backups, remove "
        "that file on the server and set another backup_repository."
    )


def command_programs(command: object) -> list[str]:
    """The programs that a shell would start for a command; [] when that cannot be told.

    The first word of each part of a pipeline or list, assignments left out.
    """
    # More than a pipeline may well ask for the program first; the test message of a deploy says whether it works.
    if re.search(r"&&|\|\||;;|\bcase\b|\bif\b|\(\)|\\\n", str(command or "")):
        return []
    lexer = shlex.shlex(str(command or ""), posix=True, punctuation_chars="|&;()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return []
    found: list[str] = []
    begins, redirects = True, False
    for word in words:
        if set(word) <= set("|&;()"):
            # The `&` of `2>&1` ends no command, and what follows the `)` of `$(hostname)` begins none.
            begins = not redirects and set(word) != {")"}
        elif begins and not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            # A name that the shell expands cannot be looked up, and an assignment is no program.
            worked_out = set(word) & set("$`<>~*?{}") or not re.search(r"[A-Za-z\[]", word)
            found += [] if word in found or worked_out else [word]
            begins = False
        redirects = word[-1:] in ("<", ">")
    return found
