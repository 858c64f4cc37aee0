"""The settings of `tunesmith serve`. A run is served with those of its recipe; any can follow on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tunesmith.recipe.values import Count, Positive, Section, as_list

Probability = Annotated[float, Field(gt=0, le=1)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(as_list)]


class Guard(Section):
    """What may go into a served model and come out of it."""

    block: Patterns = ()
    """Refuse inputs, and end answers, with one of these in them: `email`, `phone`, `card`, `key`, or a regular
    expression."""
    mask: Patterns = ()
    """Replace these by their name, such as `[email]`, on the way in and on the way out; regular expressions by
    `[masked]`."""
    max_characters: Count | None = None
    """Refuse longer inputs; longer answers end there."""
    max_repeats: Count | None = None
    """Refuse inputs, and end answers, in which the same words are repeated more often than this in a row."""
    classifier: str | None = None
    """Directory of a classification run that screens inputs and answers; a text is held back until it is cleared."""
    thresholds: dict[str, Probability] = Field(default={})
    """Labels of `classifier` to block, each with its probability threshold: `{toxic: 0.8}`."""
    check: Literal["both", "inputs", "outputs"] = "both"
    """Whether the guard checks inputs, outputs or both."""
    audit_log: str | None = None
    """File to which every action of the guard is appended as a line of JSON; without texts unless `log_texts`."""

    @model_validator(mode="after")
    def _judges(self) -> Guard:
        if (self.classifier is None) != (not self.thresholds):
            raise ValueError("guard.classifier and guard.thresholds need each other")
        return self


class Serve(Section):
    """How a trained run is served."""

    host: str = "127.0.0.1"
    """Address to listen on. Other than this machine's own needs a key."""
    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    """Port to listen on; 0 takes a free one."""
    admin_port: Annotated[int, Field(ge=0, lt=65536)] | None = None
    """Port on 127.0.0.1, and only there, at which `POST /admin/reload` loads the newest version of the models; 0 takes
    a free one, null none. SIGHUP does the same without a port."""
    key_env: str = "TUNESMITH_KEYS"
    """Environment variable with the keys that clients must show as bearer tokens, separated by commas."""
    key_file: str | None = None
    """File with such keys, one per line."""
    engine: Literal["auto", "torch", "onnx", "onnx-int8", "openvino", "llama-cpp"] = "auto"
    """What computes a model: torch, or an export that lies in the run; `auto` takes the fastest whose parity report is
    good, and for a run that answers what its `generate.engine` says. The guard's classifier always has `auto`."""
    max_body_bytes: Count = 1_000_000
    """Maximum size of a request."""
    max_inputs: Count = 64
    """Maximum inputs of one request to /predict."""
    max_input_tokens: Count | None = None
    """Refuse longer inputs. Null truncates them to the model's maximum, as `predict` does, and says so."""
    max_completion_tokens: Count | None = None
    """Maximum tokens of an answer that a request may ask for; null for as many as fit the model."""
    queue_size: Count = 256
    """Maximum queued inputs per model; further requests get 429 with a Retry-After header."""
    timeout_seconds: Positive = 60.0
    """Maximum time from a request to the end of its answer, including the guard; then the request is ended."""
    drain_seconds: Positive = 30.0
    """After SIGTERM or Ctrl-C: time for accepted requests to finish."""
    max_batch_tokens: Count = 2048
    """Approximate maximum tokens of a batch."""
    batch_wait_ms: Annotated[float, Field(ge=0)] = 3.0
    """Milliseconds that an idle model waits for another input to batch with; at most eight times in a row. It
    waits only if its last batch had several requests, so that a client on its own need not."""
    examples: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ()
    """Inputs that the playground offers. None by default: texts of the data are never shown without being asked for."""
    log_texts: bool = False
    """Write inputs and answers to the log too."""
    guard: Guard = Guard()

    @model_validator(mode="after")
    def _fits(self) -> Serve:
        if self.max_inputs > self.queue_size:
            raise ValueError("serve.queue_size is smaller than max_inputs: such a request could never wait")
        if self.admin_port and self.admin_port == self.port:
            raise ValueError("serve.admin_port is serve.port: whoever can reach the one could reload the models")
        return self
