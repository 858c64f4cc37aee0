"""The application: routes and their errors, behind the middleware."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import tunesmith
from tunesmith.serving import model_cards, openapi_schema
from tunesmith.serving.backends import ServedClassifier, ServedGenerator
from tunesmith.serving.drift_monitor import HOURS
from tunesmith.serving.drift_schemas import DriftResponse
from tunesmith.serving.handlers import Handlers
from tunesmith.serving.middleware import ADMIN, CLIENT_CLOSED_REQUEST, LOCAL_HOSTS, ClientDisconnected, Middleware
from tunesmith.serving.openai import ChatResponse, CompletionResponse, ModelList
from tunesmith.serving.openapi_schema import ERRORS, STREAMED, Responses
from tunesmith.serving.refusal import Refusal
from tunesmith.serving.schemas import ExplainResponse, Health, PredictResponse, PromptResponse, ReloadResponse

DAY = 24
"""Hours of the drift that is shown by default, and in the metrics."""
FIELD = re.compile(r"(?!str$)[a-z_]+")
HANDLED = (Refusal, RequestValidationError, HTTPException, ClientDisconnected, Exception)
CODES = {404: "no_such_path", 405: "method_not_allowed"}


def create(handlers: Handlers, keys: Sequence[str] = (), admin_address: tuple[str, int] | None = None) -> Middleware:
    """Return the ASGI application.

    keys: any of them is accepted; without keys, only local host names are served. admin_address: on which models can be
    reloaded over HTTP; None for nowhere.
    """
    live, settings = handlers.live, handlers.settings
    app = FastAPI(
        title="tunesmith",
        version=tunesmith.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers=dict.fromkeys(HANDLED, _error_response),
    )
    schema = lambda: openapi_schema.exact(FastAPI.openapi(app), live.served, settings.max_inputs, bool(keys))  # noqa: E731
    app.openapi = schema  # type: ignore[method-assign]
    kinds = {type(model) for model in live.served.values()}
    if ServedClassifier in kinds:
        predict = app.post(
            "/predict", response_model=PredictResponse, response_model_exclude_none=True, responses=ERRORS
        )
        predict(handlers.predict)
        app.post("/explain", response_model=ExplainResponse, responses=ERRORS)(handlers.explain)
    if ServedGenerator in kinds:
        app.post("/v1/chat/completions", response_model=ChatResponse, responses=STREAMED)(handlers.chat)
        app.post("/v1/completions", response_model=CompletionResponse, responses=STREAMED)(handlers.complete)
    app.post("/prompt", response_model=PromptResponse, responses=ERRORS)(handlers.prompt)
    app.post(f"{ADMIN}reload", response_model=ReloadResponse, include_in_schema=False)(handlers.reload)
    _add_read_only(app, handlers, bool(keys))
    hosts = None if keys else LOCAL_HOSTS
    return Middleware(app, handlers.metrics, handlers.state, settings, keys, hosts, live.retry_after, admin_address)


def _add_read_only(app: FastAPI, handlers: Handlers, keyed: bool) -> None:
    """Add the routes that change nothing and use no model."""
    unauthorized: Responses = {status: ERRORS[status] for status in (401, 403)}
    draining: Responses = {503: {"model": Health, "description": "The server is shutting down"}}

    @app.get("/healthz", operation_id="healthz")
    async def healthz() -> Health:
        """Whether the server is alive."""
        return Health(status="ok")

    @app.get("/readyz", operation_id="readyz", responses=draining, response_model=Health)
    async def readyz() -> Any:
        """Whether the server accepts requests."""
        if handlers.state.draining:
            return JSONResponse({"status": "draining"}, 503)
        return Health(status="ok")

    @app.get("/v1/models", responses=unauthorized)
    async def models() -> ModelList:
        """The served models."""
        return model_cards.listing(handlers.live.served, handlers.settings.examples, keyed)

    @app.get("/metrics", responses=unauthorized, response_class=Response)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        handlers.metrics.show_drift(handlers.drift(DAY))
        content, media_type = handlers.metrics.render()
        return Response(content, headers={"content-type": media_type})

    @app.get("/drift", responses={status: ERRORS[status] for status in (400, 401, 403)})
    async def drift(hours: Annotated[int, Query(ge=1, le=HOURS)] = DAY) -> DriftResponse:
        """How the requests of the last hours differ from the data that the models were evaluated on."""
        return handlers.drift(hours)

    @app.get("/monitor", include_in_schema=False)
    async def monitor() -> HTMLResponse:
        return openapi_schema.page("monitor.html")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return openapi_schema.page("docs.html")

    @app.get("/", include_in_schema=False)
    async def playground() -> HTMLResponse:
        return openapi_schema.page("index.html")


async def _error_response(request: Request, error: Any) -> Response:
    match error:
        case ClientDisconnected():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        case Refusal():
            refusal = error
        case RequestValidationError():  # without the input, which may be anything
            first = error.errors()[0]
            # between the names of fields, FastAPI puts names of types
            parts = [str(part) for part in first["loc"][1:] if isinstance(part, int) or FIELD.fullmatch(part)]
            field = ".".join(parts)
            message = f"{field}: {first['msg']}" if field else str(first["msg"])
            refusal = Refusal.invalid(message[:500], "invalid_request", field[:200] or None)
        case HTTPException():  # a path or a method that does not exist
            code = CODES.get(error.status_code, "invalid_request")
            refusal = Refusal(error.status_code, str(error.detail), code)
            refusal.headers |= error.headers or {}
        case _:
            refusal = Refusal(500, "internal server error", "internal_error")
    return JSONResponse(refusal.body(request.state.log.id), refusal.status, refusal.headers)
