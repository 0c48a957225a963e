"""Prints the output of a long job on a host while it runs; plugins/modules/host_job.py starts the job and reads it."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):
    """The class that Ansible loads from an action plugin."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Start the job and poll it until it ends; print each line once, with the host's name."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        host = task_vars.get("inventory_hostname", "")
        if self._task.check_mode:
            return {"changed": True, "skipped": True, "msg": "Not run in check mode."}
        output, rest, offset = "", "", -1
        while True:
            answer = self._execute_module(module_args={**self._task.args, "offset": offset}, task_vars=task_vars)
            if answer.get("failed") or "text" not in answer:
                return answer
            output += answer["text"]
            lines = (rest + answer["text"]).split("\n")
            rest = lines.pop()
            for line in lines:
                display.display(f"{host}: {line}")
            offset = answer["offset"]
            if "rc" in answer:
                return self._ended(answer, output)

    @staticmethod
    def _ended(answer: dict[str, Any], output: str) -> dict[str, Any]:
        result = {"changed": True, "stdout": output, "stderr": answer["stderr"], "rc": answer["rc"]}
        if answer["rc"]:
            lines = [line for line in answer["stderr"].splitlines() if line.strip()]
            result.update(
                failed=True, msg=lines[-1] if lines else f"The job exited with {answer['rc']} and without a message."
            )
        return result
