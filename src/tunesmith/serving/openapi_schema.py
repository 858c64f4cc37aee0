"""The OpenAPI description: what FastAPI finds, made exact; and the pages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from fastapi.responses import HTMLResponse

from tunesmith.serving.backends import Served, ServedClassifier
from tunesmith.serving.schemas import ProblemResponse

NONCE = "{{nonce}}"
Responses = dict[int | str, dict[str, Any]]
PROBLEMS: Responses = {
    status: {"model": ProblemResponse, "description": text}
    for status, text in {
        400: "The request is wrong, or not let through by the guard",
        401: "No valid key",
        403: "Unknown host name",
        404: "No such model",
        408: "The request did not come to its end",
        413: "The request is too large",
        429: "The queue is full: see Retry-After",
        500: "A fault of the server",
        503: "The request took too long, or the server is shutting down",
    }.items()
}
"""What any route that works can answer instead."""
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAMED: Responses = PROBLEMS | {200: {"content": {"text/event-stream": {"itemSchema": EVENT}}}}
"""The same, and a stream instead of JSON where the request has `stream`."""


def exact(page: dict[str, Any], models: Mapping[str, Served], most: int, keyed: bool) -> dict[str, Any]:
    """FastAPI's description with the names of the models, the limits, and without what it adds of itself."""
    schemas = page["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in page["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            if keyed and operation["operationId"] not in ("healthz", "readyz"):
                operation["security"] = [{"key": []}]
    if keyed:
        page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for schema in schemas.values():
        model = schema.get("properties", {}).get("model", {})
        if "anyOf" in model:
            _name(model, list(models))
    predict = schemas.get("PredictRequest", {}).get("properties", {})
    for kind in predict.get("inputs", {}).get("anyOf", []):
        if kind.get("type") == "array":
            kind["maxItems"] = most
    _bound(predict, [len(one.predictor.labels) for one in models.values() if isinstance(one, ServedClassifier)])
    return page


def _name(model: dict[str, Any], names: Sequence[str]) -> None:
    """The field that says which model: one of those that are served."""
    for kind in model["anyOf"]:
        if kind.get("type") == "string":
            kind["enum"] = list(names)


def _bound(predict: dict[str, Any], labels: Sequence[int]) -> None:
    for kind in predict.get("top_k", {}).get("anyOf", []):
        if kind.get("type") == "integer" and labels:
            kind["maximum"] = max(labels)


def page(name: str) -> HTMLResponse:
    """A page that comes whole: it loads nothing, and runs no script but its own."""
    nonce = secrets.token_urlsafe(16)
    text = resources.files("tunesmith.serving").joinpath("playground", name).read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "referrer-policy": "no-referrer", "cache-control": "no-store"}
    return HTMLResponse(text.replace(NONCE, nonce), headers=headers)
