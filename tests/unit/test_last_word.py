"""The verification's result is the last line of a run."""

from conftest import PLUGINS, load

last_word = load(PLUGINS / "callback" / "last_word.py")


def test_one_host_is_said_plainly() -> None:
    """With one host the line stands as the application wrote it."""
    assert last_word.lines({"school": {"last_word": "Results: 6 passed, 0 failed"}}) == ["Results: 6 passed, 0 failed"]


def test_several_hosts_are_named() -> None:
    """With several, each line says whose it is, in a steady order."""
    custom = {"b": {"last_word": "Results: 5 passed, 1 failed"}, "a": {"last_word": "Results: 6 passed, 0 failed"}}
    assert last_word.lines(custom) == ["a: Results: 6 passed, 0 failed", "b: Results: 5 passed, 1 failed"]


def test_nothing_to_say_is_nothing() -> None:
    """Other statistics, and runs without any, are left alone."""
    assert last_word.lines({"_run": {"other": 1}}) == []
