"""The application: routes and their errors, behind the gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import tunesmith
from tunesmith.serving import openapi_schema
from tunesmith.serving.backends import ServedClassifier, ServedGenerator
from tunesmith.serving.handlers import Handlers
from tunesmith.serving.middleware import CLOSED_REQUEST, LOCAL, ClientDisconnected, Middleware
from tunesmith.serving.openai import ChatResponse, CompletionResponse, ModelList
from tunesmith.serving.openapi_schema import PROBLEMS, STREAMED, Responses
from tunesmith.serving.refusal import Refusal
from tunesmith.serving.schemas import Health, PredictResponse, PromptResponse

FIELD = re.compile(r"(?!str$)[a-z_]+")
CODES = {404: "no_such_path", 405: "method_not_allowed"}


def create(handlers: Handlers, keys: Sequence[str] = ()) -> Middleware:
    """The ASGI application. keys: any of them opens it; without one only this machine's own host names are served."""
    models = handlers.models
    app = FastAPI(
        title="tunesmith",
        version=tunesmith.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            Refusal: _refused,
            RequestValidationError: _invalid,
            HTTPException: _unrouted,
            ClientDisconnected: _left,
            Exception: _failed,
        },
    )
    one = handlers.settings
    page = lambda: openapi_schema.exact(FastAPI.openapi(app), models, one.max_inputs, bool(keys))  # noqa: E731
    app.openapi = page  # type: ignore[method-assign]
    kinds = {type(model) for model in models.values()}
    if ServedClassifier in kinds:
        app.post("/predict", response_model=PredictResponse, responses=PROBLEMS)(handlers.predict)
    if ServedGenerator in kinds:
        app.post("/v1/chat/completions", response_model=ChatResponse, responses=STREAMED)(handlers.chat)
        app.post("/v1/completions", response_model=CompletionResponse, responses=STREAMED)(handlers.complete)
    app.post("/prompt", response_model=PromptResponse, responses=PROBLEMS)(handlers.prompt)
    _add_looks(app, handlers)
    hosts = None if keys else LOCAL
    return Middleware(
        app, handlers.metrics, handlers.state, keys, one.max_body_bytes, one.timeout_seconds, hosts, handlers.full
    )


def _add_looks(app: FastAPI, handlers: Handlers) -> None:
    """Routes that only look."""
    closed: Responses = {status: PROBLEMS[status] for status in (401, 403)}
    draining: Responses = {503: {"model": Health, "description": "No new requests are taken"}}

    @app.get("/healthz", operation_id="healthz")
    async def healthz() -> Health:
        """Whether the server lives."""
        return Health(status="ok")

    @app.get("/readyz", operation_id="readyz", responses=draining, response_model=Health)
    async def readyz() -> Any:
        """Whether it takes requests."""
        if handlers.state.draining:
            return JSONResponse({"status": "draining"}, 503)
        return Health(status="ok")

    @app.get("/v1/models", responses=closed)
    async def models() -> ModelList:
        """Every served model."""
        return handlers.listing()

    @app.get("/metrics", responses=closed, response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        content, kind = handlers.metrics.page()
        return Response(content, headers={"content-type": kind})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return openapi_schema.page("docs.html")

    @app.get("/", include_in_schema=False)
    async def playground() -> HTMLResponse:
        return openapi_schema.page("index.html")


def _respond(request: Request, refusal: Refusal) -> Response:
    return JSONResponse(refusal.body(request.state.id), refusal.status, refusal.headers)


async def _refused(request: Request, error: Any) -> Response:
    return _respond(request, error)


async def _invalid(request: Request, error: Any) -> Response:
    """What FastAPI found wrong; without the input, which may be anything."""
    first = error.errors()[0]
    # what stands between field names are names of types
    where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int) or FIELD.fullmatch(part))
    message = f"{where}: {first['msg']}" if where else str(first["msg"])
    return _respond(request, Refusal.invalid(message[:500], "invalid_request", where[:200] or None))


async def _unrouted(request: Request, error: Any) -> Response:
    refusal = Refusal(error.status_code, str(error.detail), CODES.get(error.status_code, "invalid_request"))
    refusal.headers |= error.headers or {}
    return _respond(request, refusal)


async def _left(request: Request, error: Any) -> Response:
    return Response(status_code=CLOSED_REQUEST)


async def _failed(request: Request, error: Any) -> Response:
    return _respond(request, Refusal(500, "something went wrong here", "internal_error"))
