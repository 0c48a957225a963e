"""Claims: every shape of groups that identity providers send, and malformed values, without a failed login."""

from typing import Any

import pytest

from scratch4school.login.claims import ClaimsError, GroupClaim, groups, identity


def of(**claims: Any) -> Any:
    return identity(claims, "admins", "lehrer")


@pytest.mark.parametrize(
    "claim",
    [
        {"17": {"act": "klasse.5a", "name": "Klasse 5a"}, "3": {"act": "ag", "name": "AG"}},
        [{"act": "klasse.5a", "name": "Klasse 5a"}, {"act": "ag", "name": "AG"}],
        [{"id": "klasse.5a", "displayName": "Klasse 5a"}, {"id": "ag", "display": "AG"}],
    ],
)
def test_groups_as_objects_are_read(claim: Any) -> None:
    assert groups(claim) == (GroupClaim("ag", "AG"), GroupClaim("klasse.5a", "Klasse 5a"))


def test_groups_as_names_are_read() -> None:
    assert groups(["b", "a", "b", " c "]) == (GroupClaim("a"), GroupClaim("b"))
    assert groups("lehrer") == (GroupClaim("lehrer"),)
    assert groups([{"name": "5a"}]) == (GroupClaim("5a", "5a"),)
    assert groups({"act": "lehrer", "name": "Lehrer"}) == (GroupClaim("lehrer", "Lehrer"),)


@pytest.mark.parametrize("claim", [None, 1.5, True, [], {}, "", [None, {}, {"act": None}, [], 1.5, {"act": {}}]])
def test_unusable_claim_gives_no_groups(claim: Any) -> None:
    assert groups(claim) == ()


def test_unusable_values_are_skipped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    found = groups({"1": {"name": ""}, "2": {"act": "x" * 256}, "3": {"act": "lehrer"}, "4": 7})
    assert found == (GroupClaim("7"), GroupClaim("lehrer"))
    assert "skipped" in caplog.text


def test_long_group_name_is_cut() -> None:
    assert groups([{"act": "ab", "name": "n" * 200}]) == (GroupClaim("ab", "n" * 128),)


@pytest.mark.parametrize("almost", ["lehrer\u200b", "leh\u00adrer", "lehrer ", "lehrer\u00a0", "leh\0rer"])
def test_group_that_looks_like_the_teachers_gives_no_role(almost: str) -> None:
    """Where pupils may make groups, these are groups of their own; cleaning must not turn them into another."""
    assert of(sub="ada", groups=[almost]).role == "student"
    assert of(sub="ada", groups=[{"act": almost}]).groups == ()


def test_user_id_with_invisible_character_is_refused() -> None:
    with pytest.raises(ClaimsError, match="invisible characters"):
        of(sub="ada\u200b")


@pytest.mark.parametrize(
    ("names", "role"),
    [(["lehrer", "admins"], "admin"), (["lehrer"], "teacher"), (["klasse.5a"], "student"), (None, "student")],
)
def test_groups_give_the_role(names: Any, role: str) -> None:
    assert of(sub="ada", groups=names).role == role


def test_user_id_name_and_email_are_read() -> None:
    assert of(uuid="u", id="i", sub="s", preferred_username="p", email="e").user_id == "u"
    assert of(uuid=None, id=17, sub="s").user_id == "17"
    assert of(sub="s", name="n").username == "n"
    assert of(sub="s").username == "s"
    assert of(sub="s", preferred_username="p" * 300, email={"x": 1}).username == "p" * 128
    assert of(sub="s", email="e" * 200).email is None


def test_half_a_surrogate_pair_is_dropped() -> None:
    """JSON can contain one, and no database can store it."""
    assert of(sub="s", preferred_username="\ud800").username == "s"


@pytest.mark.parametrize("user_id", [None, ["x"], True, "\0", "s" * 129])
def test_claims_without_usable_id_are_refused(user_id: Any) -> None:
    with pytest.raises(ClaimsError):
        of(sub=user_id)
