"""The edges: a project that is nearly too large, one that is, and a release that changes while a pupil edits."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect
from test_editor import SAVED, UNSAVED

from scratch4school_lab.browser.visitor import LOADED, Visitor
from scratch4school_lab.checkout import ROOT
from scratch4school_lab.hosts.plan import Host
from scratch4school_lab.scenarios.background_class import background_classes
from scratch4school_lab.scenarios.playbooks import VERIFIED, play

DEFAULT = ROOT / "tests" / "scenarios" / "projects" / "default.sb3"


def project_with_sound(megabytes: int) -> bytes:
    """The default project with one more sound, which cannot be compressed, of this size."""
    data = random.Random(megabytes).randbytes(megabytes * 1_000_000)
    header = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, 1, 48000, 96000, 2, 16, b"data", len(data)
    )
    sound = header + data
    digest = hashlib.md5(sound, usedforsecurity=False).hexdigest()
    made = io.BytesIO()
    with zipfile.ZipFile(DEFAULT) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as target:
        project = json.loads(source.read("project.json"))
        entry = {"assetId": digest, "name": "noise", "dataFormat": "wav", "format": "", "rate": 48000}
        entry |= {"sampleCount": len(data) // 2, "md5ext": f"{digest}.wav"}
        project["targets"][1]["sounds"].append(entry)
        for name in source.namelist():
            target.writestr(name, json.dumps(project) if name == "project.json" else source.read(name))
        target.writestr(f"{digest}.wav", sound)
    return made.getvalue()


def load_from_computer(pupil: Visitor, file: Path) -> None:
    """File > Load from your computer."""
    pupil.page.get_by_text("Datei", exact=True).click()
    with pupil.page.expect_file_chooser() as chooser:
        pupil.page.get_by_text("Hochladen von deinem Computer").click()
    chooser.value.set_files(file)


def test_large_project_is_saved_and_too_large_one_is_told(visitor: Callable[..., Visitor], tmp_path: Path) -> None:
    """Story 15: 14 MB are saved; 17 MB stay on the computer, and the page says why."""
    pupil = visitor("pupil81")
    pupil.page.on("dialog", lambda dialog: dialog.accept())
    editor = pupil.edit()
    for megabytes in (14, 17):
        (tmp_path / f"{megabytes}.sb3").write_bytes(project_with_sound(megabytes))
    load_from_computer(pupil, tmp_path / "14.sb3")
    editor.save_status(SAVED)
    listed = pupil.api("GET", "/api/projects")
    assert listed["count"] == 1
    versions = pupil.api("GET", f"/api/projects/{listed['projects'][0]['id']}/revisions")
    assert versions["revisions"][0]["size"] > 13_000_000
    load_from_computer(pupil, tmp_path / "17.sb3")
    editor.save_status(UNSAVED)
    expect(pupil.page.locator(".notice")).to_contain_text("höchstens 16 MB")
    # The browser's own line about the answer 413 is expected.
    assert pupil.api("GET", f"/api/projects/{listed['projects'][0]['id']}/metadata")["version"] == 1


def test_pupil_who_edits_notices_no_deploy(visitor: Callable[..., Visitor], deployed: Host, tmp_path: Path) -> None:
    """Beside a class of fifty, a deploy changes the release: every block is saved, and no notice is shown.

    The files of the page that was opened before are still there afterwards.
    """
    pupil = visitor("pupil82")
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    code = pupil.page.locator("script[src^='/code/']").first.get_attribute("src")
    with background_classes(tmp_path) as start:
        running = start(deployed, "--users", "50")
        running.wait_for_load()
        run = play("deploy.yml", "-e", "app_keep_revisions=11")
        assert run.status == 0, run.output[-4000:]
        assert VERIFIED in run.output
        editor.drag_block(1)
        pupil.page.wait_for_function(
            "async id => (await (await fetch(`/backend/api/projects/${id}/metadata`)).json()).version === 2",
            arg=editor.project_id,
        )
    expect(pupil.page.locator(".notice")).to_be_hidden()
    assert pupil.context.request.get(str(code)).ok
    count = editor.blocks()
    pupil.page.reload()
    pupil.page.wait_for_selector(LOADED)
    editor.has_blocks(count)
    assert play("deploy.yml").status == 0
