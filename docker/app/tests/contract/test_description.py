"""The OpenAPI description and the routes are equal."""

from typing import Any

import pytest
from flask import Flask

from description import DESCRIPTION, described_path, operations, problems


def test_description_has_exactly_the_routes(app: Flask) -> None:
    """Paths and methods; HEAD and OPTIONS come with Flask."""
    routed = {
        (method, described_path(rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(method, path) for method, path, _ in operations()} == routed


def test_every_name_in_braces_is_described() -> None:
    for method, path, operation in operations():
        shared = DESCRIPTION["paths"][path].get("parameters", [])
        parameters = [_resolved(each) for each in [*shared, *operation.get("parameters", [])]]
        named = {each["name"] for each in parameters if each["in"] == "path"}
        assert (method, path, named) == (method, path, {part[1:-1] for part in path.split("/") if part.startswith("{")})


def test_every_component_is_used() -> None:
    """A component without reference would never be checked."""
    used = {reference.removeprefix("#/components/") for reference in _references(DESCRIPTION)}
    schemes = {f"securitySchemes/{name}" for name in DESCRIPTION["components"]["securitySchemes"]}
    named = {f"{kind}/{name}" for kind, components in DESCRIPTION["components"].items() for name in components}
    assert named - schemes == used


def test_answers_allow_no_further_fields() -> None:
    """An object that allows further fields would hide a change of an answer."""
    requests = {"ProjectUpload", "ThumbnailUpload", "AssetUpload", "Retitle", "Share", "NewBackpackItem"}
    for name, schema in DESCRIPTION["components"]["schemas"].items():
        for each in _objects(schema):
            assert name in requests or each.get("additionalProperties") is False, name
            assert name in requests or "success" in name or set(each["required"]) <= set(each["properties"]), name


@pytest.mark.parametrize(
    ("path", "status", "body", "found"),
    [
        ("/api/status", 200, b'{"status": "ok", "timestamp": "2026-11-24T08:00:00"}', ""),
        ("/api/status", 200, b'{"status": "ok", "timestamp": "yesterday"}', "$.timestamp"),
        ("/api/status", 200, b'{"status": "ok"}', "'timestamp' is a required property"),
        ("/api/status", 200, b'{"status": "ok", "timestamp": "2026-11-24T08:00:00", "x": 1}', "'x' was unexpected"),
        ("/api/status", 418, b"{}", "the status 418 is not described"),
        ("/login", 302, b"", "the header Location is missing"),
    ],
)
def test_answer_that_differs_is_found(app: Flask, path: str, status: int, body: bytes, found: str) -> None:
    """Every other test of the contract relies on this check."""
    rule = next(rule for rule in app.url_map.iter_rules() if rule.rule == path)
    response = app.response_class(body, status, content_type="application/json")
    assert found in "; ".join(problems("GET", rule, response))
    assert bool(problems("GET", rule, response)) == bool(found)


def _resolved(parameter: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in parameter:
        resolved: dict[str, Any] = DESCRIPTION["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
        return resolved
    return parameter


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []


def _objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, dict):
        own = [schema] if schema.get("type") == "object" else []
        return own + [found for value in schema.values() for found in _objects(value)]
    return [found for value in schema for found in _objects(value)] if isinstance(schema, list) else []
