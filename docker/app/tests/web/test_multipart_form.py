"""Multipart bodies: malformed ones are refused and leave no file."""

import pytest

from helpers import Device, project_file
from scratch4school.web.services import Services


@pytest.mark.parametrize("header", ["X-A: 1\n2", "X-A: 1\r2", "Content-Type: text/x\nplain"])
def test_lone_line_break_in_a_header_is_400(pupil: Device, services: Services, header: str) -> None:
    """The library accepts it as part of the line, but Werkzeug rejects it."""
    disposition = 'Content-Disposition: form-data; name="project_file"; filename="a.sb3"'
    body = f"--b\r\n{disposition}\r\n{header}\r\n\r\n".encode() + project_file(1) + b"\r\n--b--\r\n"
    answer = pupil.request("POST", "/api/projects", data=body, content_type="multipart/form-data; boundary=b")
    assert (answer.status_code, "malformed" in answer.json["error"]) == (400, True)
    assert [path for path in services.store.root.rglob("*") if path.suffix == ".part"] == []
