"""Says a verification's result once more below the recap, so that it is the last thing that the sysadmin reads."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: last_word
type: aggregate
short_description: Print what a role left in the custom statistic C(last_word)
description:
  - A role says C(set_stats) with C(last_word) and C(per_host); the line is printed after the recap, with the
    host's name before it where there is more than one.
author:
  - The Scratch4School deployment project
"""


def lines(custom: dict[str, dict[str, Any]]) -> list[str]:
    """What is to be said of a run's custom statistics, one line a host that has something to say."""
    said = {host: values["last_word"] for host, values in custom.items() if "last_word" in values}
    if len(said) == 1:
        return [str(word) for word in said.values()]
    return [f"{host}: {word}" for host, word in sorted(said.items())]


class CallbackModule(CallbackBase):
    """Prints when everything else has been printed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "last_word"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Called by Ansible once, after the recap."""
        for line in lines(stats.custom):
            self._display.display(line)
