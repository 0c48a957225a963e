"""Generated requests, from the OpenAPI description: no 5xx, and every answer is as described.

Schemathesis generates requests that the description allows, and others. They are the same in each run, so a fault is
found again until it is fixed.
"""

import copy
import io
import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.school import ITEM, School
from description import DESCRIPTION
from helpers import PNG, project_file

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
VISITORS = ["owner", "classmate", "teacher", "anonymous"]
# Parts as the front end sends them, so that a request passes the first check.
GOOD_PARTS = {"project_file": project_file("fuzz"), "thumbnail": PNG, "asset": b"bytes"}
GOOD_JSON: dict[str, dict[str, Any]] = {
    "POST /api/backpack": ITEM,
    "POST /api/projects/{project_id}/share": {"group_ids": [1]},
}
FORM_FIELDS = {"POST /api/assets/": ["type", "format"]}
# Longer than any column, larger than any number, of the wrong type, or accepted by a check that is too weak.
ODD: list[Any] = [
    *[
        "m" * 300,
        f"{'m' * 60}/png",
        f"image/{'m' * 60}",
        "image/png\n",
        "a\0b",
        "\ud800",
        "../../x",
        "%00",
        "=",
        "",
        "٣",
    ],
    *[0, -1, 2**31, 2**63, 10**30, 1.5, True, None, [], [2**63], ["1"], [None], {}],
]
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
    # The description has the address that browsers see; the proxy strips its prefix. The tests choose the sessions.
    raw = {**copy.deepcopy(DESCRIPTION), "servers": [{"url": "/"}]}
    config = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
    return schemathesis.openapi.from_dict(raw, config=config)


def parameters(operation: Any) -> list[Any]:
    return [*operation.path_parameters, *operation.query, *operation.headers]


# An operation without parameters and body has only one request, which test_routes.py covers.
OPERATIONS = {
    operation.label: operation
    for operation in (found.ok() for found in load().get_all_operations())
    if parameters(operation) or operation.body.items
}


def has_forbidden_requests(operation: Any) -> bool:
    """Whether a client can send what the description forbids; plain text allows everything."""
    schemas = [parameter.definition["schema"] for parameter in parameters(operation)]
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
    """A request of an operation; half of them name existing objects, with parts as the front end sends them."""
    forbidden = has_forbidden_requests(operation) and draw(st.booleans())
    mode = GenerationMode.NEGATIVE if forbidden else GenerationMode.POSITIVE
    case: Case = draw(operation.as_strategy(generation_mode=mode))
    if draw(st.booleans()):
        for name in case.path_parameters or {}:
            case.path_parameters[name] = names[name]
        if "id" in (case.query or {}):
            case.query["id"] = names["project_id"]
    if draw(st.booleans()) and case.media_type == "multipart/form-data" and isinstance(case.body, dict):
        case.body.update({name: part for name, part in GOOD_PARTS.items() if name in case.body})
    return case


def send(app: Flask, school: School, case: Case, who: str) -> None:
    session_id = school.devices[who].session_id
    headers = {"Authorization": f"Bearer {session_id}"} if session_id else {}
    response = case.call(app=app, session=app.test_client(), headers=headers)
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_generated_request_is_answered_as_described(app: Flask, school: School, label: str) -> None:
    @bounded(15)
    @given(case=cases(OPERATIONS[label], school.names), who=st.sampled_from(VISITORS))
    def fuzz(case: Case, who: str) -> None:
        send(app, school, case, who)

    fuzz()


def odd_requests(operation: Any, names: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Address and options of valid requests, each with one invalid value."""
    path = operation.path.format_map(names)
    for parameter, odd in itertools.product(parameters(operation), ODD):
        text = str(odd)
        encoded = quote(text, safe="", errors="surrogatepass")
        if parameter.location is ParameterLocation.PATH:
            yield operation.path.format_map({**names, parameter.name: encoded}), {}
        elif parameter.location is ParameterLocation.QUERY:
            yield f"{path}?{parameter.name}={encoded}", {"data": _parts(GOOD_PARTS)}
        elif text.isascii() and text.isprintable():
            yield path, {"headers": {parameter.name: text}, "data": _parts(GOOD_PARTS)}
    media_types = {body.media_type for body in operation.body.items}
    if "application/json" in media_types:
        good = GOOD_JSON.get(operation.label, {"title": "Hund"})
        for name, odd in itertools.product(good, ODD):
            yield path, {"json": {**good, name: odd}}
    if "multipart/form-data" in media_types:
        for name, odd in itertools.product(FORM_FIELDS.get(operation.label, ["version"]), ODD):
            yield path, {"data": {**_parts(GOOD_PARTS), name: str(odd).encode(errors="replace").decode()}}


def _parts(contents: dict[str, bytes]) -> dict[str, Any]:
    return {name: (io.BytesIO(content), "file.bin") for name, content in contents.items()}


@pytest.mark.parametrize("label", OPERATIONS)
def test_odd_value_causes_no_5xx(school: School, label: str) -> None:
    """Each parameter and field in turn gets each odd value; all others are valid."""
    operation = OPERATIONS[label]
    device = school.devices["teacher" if "/teacher/" in label else "owner"]
    for address, options in odd_requests(operation, school.names):
        answer = device.request(operation.method.upper(), address, **options)
        assert answer.status_code < 500, (address, options)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if OPERATIONS[label].body.items])
def test_broken_body_causes_no_5xx(school: School, label: str) -> None:
    """Bodies that do not match their content type, or end in the middle."""
    method, address = label.split(" ", 1)
    path = address.format_map(school.names)

    @bounded(15)
    @given(body=st.sampled_from(BROKEN) | st.binary(max_size=100), content_type=st.sampled_from(TYPES))
    def fuzz(body: bytes, content_type: str) -> None:
        answer = school.devices["owner"].request(method, path, data=body, content_type=content_type)
        assert answer.status_code < 500

    fuzz()
