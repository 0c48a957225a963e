"""A pupil builds a project in the editor, and it is saved."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Route, expect

from scratch4school_lab.browser.visitor import LOADED, Visitor

SAVED = re.compile("Gespeichert um")
UNSAVED = "Nicht gespeichert"


def test_login_leaves_no_session_id_where_scripts_can_read(visitor: Callable[..., Visitor]) -> None:
    """Story 1: neither in an address nor in a storage nor in an answer; the cookie is for the browser only."""
    pupil = visitor("pupil61")
    (cookie,) = [each for each in pupil.context.cookies() if each["name"] == "__Host-scratch4school"]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")
    readable = pupil.page.evaluate(
        "async () => [document.cookie, location.href, JSON.stringify(localStorage), JSON.stringify(sessionStorage),"
        " await (await fetch('/backend/session')).text(), await (await fetch('/backend/api/user')).text()].join()"
    )
    assert cookie["value"] not in readable
    assert not [line for line in pupil.watch.requests if cookie["value"] in line]


def test_first_block_creates_one_project_with_title_and_picture(visitor: Callable[..., Visitor]) -> None:
    """Story 2: opening the editor creates none."""
    pupil = visitor("pupil62")
    editor = pupil.edit()
    assert pupil.api("GET", "/api/projects")["count"] == 0
    editor.drag_block()
    editor.save_status(SAVED)
    listed = pupil.api("GET", "/api/projects")
    assert listed["count"] == 1
    assert listed["projects"][0]["id"] == editor.project_id
    pupil.visit("/projects")
    card = pupil.page.locator("li.card")
    expect(card).to_have_count(1)
    assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_change_is_saved_by_itself_and_there_after_reload(visitor: Callable[..., Visitor]) -> None:
    """Story 3: autosave."""
    pupil = visitor("pupil63")
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    first = pupil.api("GET", f"/api/projects/{editor.project_id}/metadata")["version"]
    editor.drag_block(1)
    pupil.page.wait_for_function(
        "async ([id, version]) =>"
        " (await (await fetch(`/backend/api/projects/${id}/metadata`)).json()).version > version",
        arg=[editor.project_id, first],
    )
    count = editor.blocks()
    pupil.page.reload()
    pupil.page.wait_for_selector(LOADED)
    editor.has_blocks(count)


def conflict(pupil: Visitor) -> tuple[object, object]:
    """Two tabs with one project; the second has saved, and the first one's save meets it."""
    first = pupil.edit()
    first.drag_block(0)
    first.save_status(SAVED)
    second = pupil.edit(f"/editor/{first.project_id}", pupil.context.new_page())
    second.drag_block(1)
    second.save_status(SAVED)
    pupil.page.bring_to_front()
    first.drag_block(2)
    expect(first.dialog).to_contain_text("inzwischen woanders gespeichert")
    expect(first.dialog.locator("figure")).to_have_count(2)
    return first, second


def test_conflict_keeps_both_versions_when_pupil_copies(visitor: Callable[..., Visitor]) -> None:
    """Story 4, first way out."""
    pupil = visitor("pupil64")
    first, _ = conflict(pupil)
    original = first.project_id
    first.dialog.get_by_role("button", name="Meine als Kopie speichern").click()
    pupil.page.wait_for_url(lambda url: f"/editor/{original}" not in url)
    pupil.page.wait_for_selector(LOADED)
    assert pupil.api("GET", "/api/projects")["count"] == 2


def test_conflict_saves_over_other_version_when_pupil_keeps_own(visitor: Callable[..., Visitor]) -> None:
    """Story 4, second way out; the other version stays in the list."""
    pupil = visitor("pupil65")
    first, _ = conflict(pupil)
    first.dialog.get_by_role("button", name="Meine behalten").click()
    first.save_status(SAVED)
    versions = pupil.api("GET", f"/api/projects/{first.project_id}/revisions")
    assert versions["count"] == 3
    assert versions["revisions"][0]["is_current"]


def test_conflict_loads_other_version_when_pupil_chooses_that(visitor: Callable[..., Visitor]) -> None:
    """Story 4, third way out; nothing is saved."""
    pupil = visitor("pupil66")
    first, second = conflict(pupil)
    count = second.blocks()
    first.dialog.get_by_role("button", name="Die andere laden").click()
    pupil.page.wait_for_function("() => document.documentElement.dataset.project !== 'loaded'")
    pupil.page.wait_for_selector(LOADED)
    first.has_blocks(count)
    assert pupil.api("GET", f"/api/projects/{first.project_id}/metadata")["version"] == 2


def test_work_without_network_is_kept_told_and_saved_later(visitor: Callable[..., Visitor]) -> None:
    """Story 5: the page says so, and tries again by itself."""
    pupil = visitor("pupil67")
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    pupil.context.set_offline(True)
    editor.drag_block(1)
    editor.save_status(UNSAVED)
    expect(pupil.page.locator(".notice")).to_contain_text("Keine Verbindung")
    pupil.context.set_offline(False)
    editor.save_status(SAVED)
    expect(pupil.page.locator(".notice")).to_be_hidden()
    assert pupil.api("GET", f"/api/projects/{editor.project_id}/metadata")["version"] == 2


def test_killed_tab_offers_its_work_as_draft(visitor: Callable[..., Visitor]) -> None:
    """Story 6: the network is away, and the tab is gone without a chance to save."""
    pupil = visitor("pupil68")
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    project = editor.project_id
    pupil.context.set_offline(True)
    editor.drag_block(1)
    editor.save_status(UNSAVED)
    count = editor.blocks()
    pupil.page.close(run_before_unload=False)
    pupil.context.set_offline(False)
    pupil.page = pupil.context.new_page()
    pupil.page.goto(f"/editor/{project}")
    offer = pupil.page.locator("dialog[open]")
    expect(offer).to_contain_text("Arbeit, die nicht gespeichert ist")
    offer.get_by_role("button", name="Weiterarbeiten").click()
    pupil.page.wait_for_selector(LOADED)
    editor.page = pupil.page
    editor.has_blocks(count)
    editor.save_status(SAVED)
    assert pupil.api("GET", f"/api/projects/{project}/metadata")["version"] == 2


def test_lost_answer_ends_in_no_conflict(visitor: Callable[..., Visitor]) -> None:
    """Story 7: the server saved, and its answer was lost."""
    pupil = visitor("pupil69")
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    lost = []

    def lose(route: Route) -> None:
        if route.request.method != "PUT" or lost:
            route.continue_()
            return
        lost.append(route.request.method)
        route.fetch()
        route.abort("connectionreset")

    pupil.page.route("**/backend/api/projects/*", lose)
    editor.drag_block(1)
    editor.save_status(UNSAVED)
    editor.save_status(SAVED)
    expect(editor.dialog).to_have_count(0)
    assert lost == ["PUT"]
    assert pupil.api("GET", "/api/projects")["count"] == 1


def test_expired_session_loses_no_work(visitor: Callable[..., Visitor]) -> None:
    """Story 8: log in again in another window, and the save goes on."""
    pupil = visitor("pupil70")
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    pupil.api("POST", "/logout")
    editor.drag_block(1)
    expect(editor.dialog).to_contain_text("Deine Anmeldung ist abgelaufen")
    with pupil.context.expect_page() as opened:
        editor.dialog.get_by_role("button", name="Wieder anmelden").click()
    window = opened.value
    window.wait_for_load_state()
    if "logged-in" not in window.url:
        pupil.fill_in_login(window)
    editor.save_status(SAVED)
    expect(editor.dialog).to_have_count(0)
    assert pupil.api("GET", f"/api/projects/{editor.project_id}/metadata")["version"] == 2
