"""Our own pages: projects, versions, sharing, pupils; their languages, keyboard and sizes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from conftest import PICTURES
from playwright.sync_api import expect
from test_editor import SAVED

from scratch4school_lab.browser.chromium import SIZES
from scratch4school_lab.browser.visitor import LOADED, Editor, Visitor


def project_of(pupil: Visitor) -> Editor:
    """A saved project with one block, in the editor."""
    editor = pupil.edit()
    editor.drag_block(0)
    editor.save_status(SAVED)
    return editor


def test_teacher_opens_project_of_pupil_without_saving_and_remixes(visitor: Callable[..., Visitor]) -> None:
    """Story 9: looking sends no save; a remix is the teacher's own project."""
    pupil, teacher = visitor("pupil71"), visitor("lehrer1")
    project = project_of(pupil).project_id
    before = teacher.api("GET", "/api/projects")["count"]
    teacher.visit("/pupils")
    teacher.page.get_by_role("link", name="pupil71").first.click()
    teacher.page.locator("li.card h2 a").first.click()
    teacher.page.wait_for_selector(LOADED)
    Editor(teacher.page).drag_block(1)
    expect(teacher.page.locator("header")).to_contain_text("Nur ansehen")
    assert not [line for line in teacher.watch.requests if line.startswith("PUT")]
    teacher.page.get_by_text("Remix", exact=True).click()
    teacher.page.wait_for_url(lambda url: f"/editor/{project}" not in url)
    assert teacher.api("GET", "/api/projects")["count"] == before + 1
    assert pupil.api("GET", f"/api/projects/{project}/metadata")["version"] == 1


def test_restored_version_is_current_and_newer_one_stays_listed(visitor: Callable[..., Visitor]) -> None:
    """Story 10."""
    pupil = visitor("pupil72")
    editor = project_of(pupil)
    first = editor.blocks()
    editor.drag_block(1)
    editor.page.get_by_role("button", name="Jetzt speichern").or_(editor.page.locator(".save-status")).first.wait_for()
    pupil.page.wait_for_function(
        "async id => (await (await fetch(`/backend/api/projects/${id}/metadata`)).json()).version === 2",
        arg=editor.project_id,
    )
    project = editor.project_id
    pupil.visit(f"/versions/{project}")
    expect(pupil.page.locator("li.version")).to_have_count(2)
    pupil.page.locator("li.version").last.get_by_role("button", name=re.compile("^Wiederherstellen")).click()
    pupil.page.locator("dialog[open]").get_by_role("button", name="Wiederherstellen").click()
    expect(pupil.page.locator("li.version")).to_have_count(3)
    expect(pupil.page.locator("li.version").first).to_contain_text("(jetzt)")
    pupil.edit(f"/editor/{project}").has_blocks(first)


def test_project_shared_with_group_is_seen_and_copied_by_classmate(visitor: Callable[..., Visitor]) -> None:
    """Story 11; a pupil of another group does not see it."""
    pupil, classmate, other = visitor("pupil73"), visitor("pupil74"), visitor("pupil31")
    project = project_of(pupil).project_id
    title = f"Geteilt {project}"
    pupil.visit("/projects")
    pupil.page.get_by_role("button", name=re.compile("^Umbenennen")).first.click()
    pupil.page.fill("dialog[open] input", title)
    pupil.page.press("dialog[open] input", "Enter")
    pupil.card(title).get_by_role("button", name=re.compile("^Teilen")).click()
    pupil.page.locator("dialog[open]").get_by_role("checkbox").first.check()
    pupil.page.locator("dialog[open]").get_by_role("button", name="Teilen").click()
    expect(pupil.card(title)).to_contain_text("klasse.6b")
    classmate.visit("/shared")
    expect(classmate.card(title)).to_contain_text("pupil73")
    classmate.card(title).get_by_role("button", name=re.compile("^Kopieren")).click()
    classmate.visit("/projects")
    expect(classmate.page.locator("li.card", has_text=title)).to_have_count(1)
    other.visit("/shared")
    expect(other.card(title)).to_have_count(0)


def test_logout_ends_session_in_all_tabs(visitor: Callable[..., Visitor]) -> None:
    """The other tab shows the first page by itself, and the cookie is gone."""
    pupil = visitor("pupil75")
    second = pupil.context.new_page()
    pupil.visit("/projects", second)
    pupil.page.get_by_role("button", name="Abmelden").click()
    for page in (pupil.page, second):
        expect(page.get_by_role("link", name="Anmelden")).to_be_visible()
    assert not [each for each in pupil.context.cookies() if each["name"].startswith("__Host-")]


def test_draft_of_other_user_is_not_shown_on_shared_computer(visitor: Callable[..., Visitor]) -> None:
    """One browser, two pupils: the second sees neither the draft nor its title."""
    pupil = visitor("pupil76")
    editor = project_of(pupil)
    pupil.context.set_offline(True)
    editor.drag_block(1)
    editor.save_status("Nicht gespeichert")
    pupil.page.close(run_before_unload=False)
    pupil.context.set_offline(False)
    pupil.page = pupil.context.new_page()
    pupil.visit("/projects")
    expect(pupil.page.locator(".drafts li")).to_have_count(1)
    pupil.context.clear_cookies()
    pupil.name = "pupil77"
    pupil.log_in()
    expect(pupil.page.locator("h1")).to_be_visible()
    expect(pupil.page.locator(".drafts")).to_have_count(0)


@pytest.mark.parametrize(
    ("locale", "word"), [("de-DE", "Meine Projekte"), ("en-GB", "My projects"), ("fr-FR", "My projects")]
)
def test_language_is_that_of_browser_until_person_chooses(
    visitor: Callable[..., Visitor], locale: str, word: str
) -> None:
    """Story 13: our pages and the editor; the choice stays."""
    pupil = visitor("pupil78", locale=locale)
    expect(pupil.page.locator("h1")).to_have_text(word)
    other = "English" if word.startswith("Meine") else "Deutsch"
    pupil.page.get_by_role("button", name=other).click()
    expect(pupil.page.locator("h1")).not_to_have_text(word)
    pupil.edit()
    category = "Motion" if other == "English" else "Bewegung"
    expect(pupil.page.get_by_text(category, exact=True).first).to_be_visible()


@pytest.mark.parametrize("locale", ["de-DE", "en-GB"])
def test_editor_clips_no_menu_at_1280(visitor: Callable[..., Visitor], locale: str) -> None:
    """Story 13: the page does not scroll sideways, and each element of the menu bar lies inside the window."""
    pupil = visitor("pupil79", locale=locale)
    pupil.edit()
    assert pupil.page.evaluate("() => document.documentElement.scrollWidth") <= 1280
    clipped = pupil.page.evaluate(
        "() => [...document.querySelectorAll('header.school *, [class*=menu-bar_menu-bar] *')]"
        ".filter(each => each.offsetParent !== null && each.getBoundingClientRect().width > 0"
        " && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.className)"
    )
    assert clipped == []


OUR_PAGES = ["/projects", "/shared", "/pupils", "/versions/{project}"]


@pytest.mark.parametrize("locale", ["de-DE", "en-GB"])
def test_pages_fit_each_size_and_are_kept_as_pictures(visitor: Callable[..., Visitor], locale: str) -> None:
    """No page scrolls sideways at 1280, at 1024 with touch, and on a phone."""
    teacher = visitor("lehrer2", locale=locale)
    project = project_of(teacher).project_id
    for name, (width, height) in SIZES.items():
        teacher.page.set_viewport_size({"width": width, "height": height})
        for path in OUR_PAGES:
            address = path.format(project=project)
            teacher.visit(address)
            teacher.page.screenshot(path=PICTURES / f"{locale}-{name}{path.split('/{')[0].replace('/', '-')}.png")
            assert teacher.page.evaluate("() => document.documentElement.scrollWidth") <= width, (address, name)


def test_pages_work_by_keyboard_alone(visitor: Callable[..., Visitor]) -> None:
    """Story 14: from the list to a renamed project with Tab, Enter and Escape; the focus can always be seen."""
    pupil = visitor("pupil80")
    project_of(pupil)
    pupil.visit("/projects")

    def focused() -> str:
        label = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
        return str(pupil.page.evaluate(f"() => {label}"))

    for _ in range(40):
        pupil.page.keyboard.press("Tab")
        if focused().startswith("Umbenennen"):
            break
    assert focused().startswith("Umbenennen")
    assert pupil.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none"
    pupil.page.keyboard.press("Enter")
    expect(pupil.page.locator("dialog[open] input")).to_be_focused()
    pupil.page.keyboard.press("Escape")
    expect(pupil.page.locator("dialog[open]")).to_have_count(0)
    pupil.page.locator("button", has_text="Umbenennen").first.focus()
    pupil.page.keyboard.press("Enter")
    pupil.page.keyboard.type("Nur mit Tasten")
    pupil.page.keyboard.press("Enter")
    expect(pupil.card("Nur mit Tasten")).to_be_visible()
