"""The OpenAPI schema: FastAPI's, made exact; and the two pages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import resources
from typing import Any

from fastapi.responses import HTMLResponse

from tunesmith.serving.backends import Served, ServedClassifier
from tunesmith.serving.schemas import ErrorResponse

NONCE, STYLE = "{{nonce}}", "{{page.css}}"
"""What pages have in the places of a random number, and of the style of those that are read rather than used."""
Schema = dict[str, Any]
Responses = dict[int | str, Schema]
ERRORS: Responses = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        400: "The request is invalid, or blocked by the guard",
        401: "Missing or invalid key",
        403: "Unknown host name",
        404: "No such model",
        408: "The request body arrived too slowly",
        413: "The request body is too large",
        429: "The queue is full: see Retry-After",
        500: "Internal server error",
        503: "The request took too long, or the server is shutting down",
    }.items()
}
"""Error responses of every route that uses a model."""
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAMED: Responses = ERRORS | {200: {"content": {"text/event-stream": {"itemSchema": EVENT}}}}
"""The same, and a stream instead of JSON where the request has `stream`."""


def exact(schema: Schema, models: Mapping[str, Served], max_inputs: int, keyed: bool) -> Schema:
    """Return FastAPI's schema with the names of the models and the limits, without the responses that never occur."""
    components = schema["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            if keyed and operation["operationId"] not in ("healthz", "readyz"):
                operation["security"] = [{"key": []}]
    if keyed:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for component in components.values():
        for variant in component.get("properties", {}).get("model", {}).get("anyOf", []):
            if variant.get("type") == "string":
                variant["enum"] = list(models)
    fields = components.get("PredictRequest", {}).get("properties", {})
    for variant in fields.get("inputs", {}).get("anyOf", []):
        if variant.get("type") == "array":
            variant["maxItems"] = max_inputs
    labels = [model.classifier.labels for model in models.values() if isinstance(model, ServedClassifier)]
    if not any(labels):
        fields.pop("top_k", None)
    for variant in fields.get("top_k", {}).get("anyOf", []):
        if variant.get("type") == "integer":
            variant["maximum"] = max(map(len, labels))
    explained = components.get("ExplainRequest", {}).get("properties", {}).get("label", {})
    for variant in explained.get("anyOf", []):
        if variant.get("type") == "string" and any(labels):
            variant["enum"] = list(dict.fromkeys(label for each in labels for label in each))
    return schema


def page(name: str) -> HTMLResponse:
    """Return a page that loads nothing else and runs no script but its own."""
    nonce = secrets.token_urlsafe(16)
    folder = resources.files("tunesmith.serving").joinpath("playground")
    text, style = (folder.joinpath(file).read_text(encoding="utf-8") for file in (name, "page.css"))
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer", "cache-control": "no-store"}
    return HTMLResponse(text.replace(STYLE, style.rstrip()).replace(NONCE, nonce), headers=headers)
