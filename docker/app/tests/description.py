"""Comparing answers with the OpenAPI description."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from helpers import BufferedClient

DESCRIPTION: dict[str, Any] = yaml.safe_load(resources.files("scratch4school").joinpath("openapi.yaml").read_text())
METHODS = ("get", "put", "post", "delete")
# Answers of the routing itself: an unknown address, a wrong method, an address with or without a slash.
_ROUTING_STATUSES = (400, 404, 405, 308)

_BASE = "urn:description"
_REGISTRY: Registry[Any] = Registry().with_resource(_BASE, DRAFT202012.create_resource(DESCRIPTION))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    for path, item in DESCRIPTION["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def described_path(rule: Rule | str) -> str:
    """The path of a Flask route in the description."""
    return re.sub(r"<(?:[^<>:]+:)?([^<>]+)>", r"{\1}", str(rule))


def problems(method: str, rule: Rule, response: Any) -> list[str]:
    """The differences between an answer of a route and its description.

    The description has no 500, because each is a fault. A test that injects a fault checks its 500 itself.
    """
    if response.status_code == 500:
        return list(_wrong_json(["components", "schemas", "ServerError"], response.json))
    pointer = ["paths", described_path(rule), method.lower(), "responses", str(response.status_code)]
    described = _at(pointer)
    if described is None:
        return [f"the status {response.status_code} is not described"]
    if "$ref" in described:
        pointer = described["$ref"].removeprefix("#/").split("/")
        described = _at(pointer)
    return [*_wrong_headers(described, response), *_wrong_content(described, pointer, response)]


class DescribedClient(BufferedClient):
    """A client that compares every answer with the description."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        response = super().open(*args, **kwargs)
        asked = response.request
        found = _problems_of(self.application.url_map, asked.method, asked.path, response)
        assert not found, f"{asked.method} {asked.path}: {'; '.join(found)}\n{response.get_data(as_text=True)[:500]}"
        return response


def _problems_of(url_map: Map, method: str, path: str, response: Any) -> list[str]:
    try:
        rule, _ = url_map.bind("localhost").match(path, method, return_rule=True)
    except (HTTPException, RequestRedirect) as error:
        if error.code != response.status_code:
            return [f"routing would answer {error.code}"]
        return [] if error.code == 308 or response.is_json else ["the error is not JSON"]
    if method in ("OPTIONS", "HEAD"):
        return []
    return problems(method, rule, response)


def _wrong_headers(described: dict[str, Any], response: Any) -> Iterator[str]:
    for name, header in described.get("headers", {}).items():
        if "$ref" in header:
            header = _at(header["$ref"].removeprefix("#/").split("/"))
        value = response.headers.get(name)
        if value is None:
            yield f"the header {name} is missing"
        elif not re.search(header["schema"]["pattern"], value):
            yield f"the header {name} is {value!r}"


def _wrong_content(described: dict[str, Any], pointer: list[str], response: Any) -> Iterator[str]:
    for mimetype, media in described.get("content", {}).items():
        if fnmatchcase(response.mimetype, mimetype):
            if "schema" in media:
                yield from _wrong_json([*pointer, "content", mimetype, "schema"], response.json)
            return
    yield f"the content type {response.mimetype} is not described"


def _wrong_json(pointer: list[str], answer: Any) -> Iterator[str]:
    fragment = "/".join(
        part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D") for part in pointer
    )
    validator = Draft202012Validator({"$ref": f"{_BASE}#/{fragment}"}, registry=_REGISTRY)
    for error in validator.iter_errors(answer):
        yield f"{error.json_path}: {error.message}"


def _at(pointer: list[str]) -> Any:
    found: Any = DESCRIPTION
    for part in pointer:
        found = found.get(part)
        if found is None:
            return None
    return found
