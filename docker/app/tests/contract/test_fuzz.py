"""Requests that nobody would write, made from the OpenAPI description: no 5xx, and every answer is as described.

Schemathesis makes them, of what the description allows and of what it does not. They are the same in each run, so that
a fault found here is found again until it is mended.
"""

import copy
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from description import DESCRIPTION
from helpers import PNG, project_file
from school import ITEM, School

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
VISITORS = ["owner", "classmate", "teacher", "nobody"]
# What makes a request get further than the first check: parts as the front end sends them.
GOOD_PARTS: dict[str, bytes] = {"project_file": project_file("fuzz"), "thumbnail": PNG}
# Longer than any column, and each of the kinds that checks let pass because they look at the characters only.
ODD_TEXTS = ["m" * 300, f"{'m' * 60}/png", f"image/{'m' * 60}", "image/png\n", "a\0b", "\ud800", "../../x", "%00", "="]
BOUNDARY = "multipart/form-data; boundary=x"
TYPES = ["application/json", BOUNDARY, "multipart/form-data", "application/x-www-form-urlencoded", "image/png", ""]
BROKEN = [
    b"",
    b"{",
    b"\xff\xfe{}",
    b'{"group_ids": [1e400, NaN, -0, 1.0]}',
    b'{"title": "\\ud800"}',
    b"[" * 100_000,
    b"--x",
    b"--x--",
    b"--x\r\n\r\n\r\n--x--",
    b'--x\r\nContent-Disposition: form-data; name="project_file"; filename="\x00"\r\n\r\nPK\x03\x04\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="asset"; filename="a"\r\n\r\n\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="\xff"; filename="a"\r\nContent-Length: -1\r\n\r\na\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n\xff\r\n--x--\r\n',
    b"--x\r\nContent-Type: text/plain; charset=no-such\r\n"
    b'Content-Disposition: form-data; name="type"\r\n\r\nx\r\n--x--\r\n',
]


def load() -> Any:
    # The description gives the address that browsers see; the proxy strips its prefix. The sessions are ours to choose.
    raw = {**copy.deepcopy(DESCRIPTION), "servers": [{"url": "/"}]}
    config = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
    return schemathesis.openapi.from_dict(raw, config=config)


OPERATIONS = {operation.label: operation for operation in (found.ok() for found in load().get_all_operations())}


def has_forbidden_requests(operation: Any) -> bool:
    """Whether the description forbids something that can be sent: text alone may be anything."""
    parameters = [*operation.path_parameters, *operation.query, *operation.headers]
    schemas = [parameter.definition["schema"] for parameter in parameters]
    return bool(operation.body.items) or any(schema.get("type") != "string" for schema in schemas)


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def cases(draw: Any, operation: Any, names: dict[str, str]) -> Case:
    """A request of an operation; every other one is for something that is there, with parts as the front end's."""
    forbidden = has_forbidden_requests(operation) and draw(st.booleans())
    mode = GenerationMode.NEGATIVE if forbidden else GenerationMode.POSITIVE
    case: Case = draw(operation.as_strategy(generation_mode=mode))
    if draw(st.booleans()):
        for name in case.path_parameters or {}:
            case.path_parameters[name] = names[name]
        if "id" in (case.query or {}):
            case.query["id"] = names["project_id"]
    if draw(st.booleans()) and isinstance(case.body, dict):
        case.body.update({name: part for name, part in GOOD_PARTS.items() if name in case.body})
        if operation.label == "POST /api/backpack":
            odd_text = st.text() | st.sampled_from(ODD_TEXTS)
            case.body = {**ITEM, **draw(st.fixed_dictionaries({}, optional=dict.fromkeys(ITEM, odd_text)))}
    return case


def send(app: Flask, school: School, case: Case, who: str) -> None:
    session_id = school.devices[who].session_id
    headers = {"Authorization": f"Bearer {session_id}"} if session_id else {}
    response = case.call(app=app, session=app.test_client(), headers=headers)
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_is_answered_otherwise_than_described(app: Flask, school: School, label: str) -> None:
    @bounded(25)
    @given(case=cases(OPERATIONS[label], school.names), who=st.sampled_from(VISITORS))
    def fuzz(case: Case, who: str) -> None:
        send(app, school, case, who)

    fuzz()


@pytest.mark.parametrize("label", [label for label in OPERATIONS if OPERATIONS[label].body.items])
def test_no_body_is_too_broken(school: School, label: str) -> None:
    """Bodies that are not what their content type says, not what it allows, or cut off in the middle."""
    method, address = label.split(" ", 1)
    path = address.format_map(school.names)

    @bounded(25)
    @given(body=st.sampled_from(BROKEN) | st.binary(max_size=100), content_type=st.sampled_from(TYPES))
    def fuzz(body: bytes, content_type: str) -> None:
        answer = school.devices["owner"].request(method, path, data=body, content_type=content_type)
        assert answer.status_code < 500

    fuzz()
