"""Keys in the environment, in addresses and in headers: none is written to a file, printed or sent elsewhere."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

from tests import conftest, forked, tiny
from tests.campaigns.campaign import CLEAN, SECONDS, Campaign, Outcome, Result, command, execute, prepare
from tests.endpoint_server import Act, Request, serving

VARIABLES = ("JUDGE_KEY", "TUNESMITH_JUDGE_KEY", "TUNESMITH_KEYS", "OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")
VARIABLES += ("HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN")


class Secrets(Campaign):
    """A command with canaries wherever a secret can come from; then all that it left is searched."""

    name = "secrets"
    size = 48
    sample = 5

    def prepare(self, folder: Path) -> None:
        self.shared = folder
        conftest.write_csv(folder / "reviews.csv", tiny.texts(60))
        rows = [
            {"instruction": f"What is {n} and {n}?", "output": f"{2 * n}", "response": f"It is {2 * n}."}
            for n in range(6)
        ]
        (folder / "said.json").write_text(json.dumps(rows))
        prepare("train", "data.path=reviews.csv", "method=linear", "--run-dir=linear", folder=folder)

    def attempt(self, number: int, folder: Path) -> Outcome:
        secrets = {name: self._secret(number, name) for name in (*VARIABLES, "user", "setting")}
        environment = {name: secrets[name] for name in VARIABLES}
        environment |= {"TUNESMITH_CACHE": f"{folder / 'cache'}", "HF_HOME": f"{folder / 'hub'}"}
        kinds = [self._train, self._judge, self._address, self._report, self._export, self._doctor, self._serve]
        kinds.insert(2, self._judge)
        printed = kinds[number % len(kinds)](number, folder, secrets, environment)
        if isinstance(printed, Outcome):
            return printed
        for name, text in [("output", printed.encode()), *_files(folder)]:
            for variable, secret in secrets.items():
                if any(form in text for form in _forms(secret)):
                    return Outcome("silent", f"{variable} stands in {name}: {text[-600:]!r}")
        return Outcome("works")

    def _secret(self, number: int, name: str) -> str:
        return f"sk-{self.random(number).randbytes(6).hex()}+/{name[:4]}={self.random(number + 1).randbytes(6).hex()}"

    def _train(self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]) -> str | Outcome:
        """With a judge section that holds a key, and sometimes with an error and `--debug`."""
        data = {"path": f"{self.shared / 'reviews.csv'}"}
        recipe = {"method": "linear", "data": data, "judge": {"api_key": secrets["setting"]}}
        path = folder.parent / f"recipe-{number}.yaml"  # outside of what is searched
        path.write_text(json.dumps(recipe))
        more = self.random(number).choice([["--debug"], ["-v"], ["data.path=nothing.csv", "--debug"], ["seed=x"]])
        return _printed(execute("train", str(path), *more, "--run-dir=run", folder=folder, environment=environment))

    def _judge(self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]) -> str | Outcome:
        """Before an endpoint that echoes the key, in every way in which one can answer."""
        sent: list[Request] = []

        def elsewhere(request: Request) -> str:
            sent.append(request)
            return "Score: 50"

        def refusing(status: int) -> Callable[[Request], tuple[int, dict[str, str], bytes]]:
            return lambda request: (status, {"X-Echo": _key(request)}, f"no such key: {_key(request)}".encode())

        with serving(elsewhere) as other:
            acts: list[Act] = [
                lambda request: f"{_key(request)}\nScore: 50",
                lambda request: f"Score: {_key(request)}",
                refusing(401),
                refusing(500),
                refusing(429),
                lambda request: (307, {"Location": f"{other.url}/chat/completions?key={_key(request)}"}, b""),
                lambda request: (200, {}, f"not JSON: {_key(request)}".encode()),
            ]
            act = self.random(number).choice(acts)
            words = ["judge", str(self.shared / "said.json"), "--model=m", "--output=judged", "judge.max_retries=1"]
            words += ["judge.timeout=2", "judge.controls=1"]
            words += self.random(number + 1).choice(
                [["--api-key-env=JUDGE_KEY"], [], ["--api-key-env=JUDGE_KEY", "--debug"], ["-v"]]
            )
            with serving(act) as server:
                result = execute(*words, f"--url={server.url}", folder=folder, environment=environment)
                if not server.requests:
                    return Outcome("unclear", f"nothing was asked: {result.stderr[-800:]}")
        if any("authorization" in request.headers for request in sent):
            return Outcome("silent", "the key went to the address of a redirect")
        return _printed(result)

    def _address(
        self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]
    ) -> str | Outcome:
        """Secrets in an address: of data, of an endpoint, of a storage."""
        secret = quote(secrets["user"], safe="")
        port = "127.0.0.1:9"
        words = self.random(number).choice(
            [
                ["judge", str(self.shared / "said.json"), "--model=m", f"--url=http://me:{secret}@{port}/v1"],
                ["train", f"data.path=http://me:{secret}@{port}/reviews.csv"],
                ["check", f"data.path=https://{port}/reviews.csv?token={secret}"],
                ["check", f"data.path=s3://me:{secret}@{port}/reviews.csv"],
                ["sweep", f"data.path={self.shared / 'reviews.csv'}", f"--storage=postgresql://me:{secret}@{port}/db"],
                [
                    "train",
                    f"data.path={self.shared / 'reviews.csv'}",
                    f"model.name_or_path=http://me:{secret}@{port}/m",
                ],
            ]
        )
        return _printed(execute(*words, folder=folder, environment=environment))

    def _report(self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]) -> str | Outcome:
        words = ["evaluate", str(self.shared / "said.json"), "--report=report.html", "-v"]
        return _printed(execute(*words, folder=folder, environment=environment))

    def _export(self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]) -> str | Outcome:
        words = ["export", str(self.shared / "linear"), "--to=onnx", "--output=exported", "-v"]
        return _printed(execute(*words, folder=folder, environment=environment))

    def _doctor(self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]) -> str | Outcome:
        words = [["doctor"], ["doctor", "--debug"], ["runs", "list"]][number // 8 % 3]
        return _printed(execute(*words, folder=folder, environment=environment))

    def _serve(self, number: int, folder: Path, secrets: dict[str, str], environment: dict[str, str]) -> str | Outcome:
        """A server whose clients show right and wrong keys, in headers and in addresses."""
        log = folder.parent / f"served-{number}"
        words = ("serve", str(self.shared / "linear"), "serve.port=0", "serve.guard.audit_log=audit.jsonl", "-v")
        process = forked.start(log, command, str(folder), words, environment=environment)
        read = log.with_suffix(".err")
        end = time.monotonic() + SECONDS
        while "http://" not in (said := read.read_text() if read.exists() else "") and process.is_alive():
            if time.monotonic() > end:
                process.kill()
                return Outcome("hang", f"the server does not listen: {said}")
            time.sleep(0.05)
        try:
            address = "http://" + said.split("http://")[1].split()[0].rstrip("/.,")
            while time.monotonic() < end:  # it says so just before it listens
                with contextlib.suppress(urllib.error.URLError):
                    urllib.request.urlopen(f"{address}/healthz", timeout=10).close()
                    break
                time.sleep(0.05)
            right = secrets["TUNESMITH_KEYS"]
            statuses = [_ask(address, key) for key in (right, secrets["setting"], f"{right}x")]
            _ask(f"{address}/v1/models?api_key={quote(secrets['user'])}", secrets["setting"])
        finally:
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
            process.join(SECONDS)
        if statuses != [200, 401, 401]:
            return Outcome("silent", f"statuses {statuses}")
        return read.read_text() + log.with_suffix(".out").read_text()


def _ask(address: str, key: str) -> int:
    body = json.dumps({"inputs": "a goal"}).encode()
    url = address if "?" in address else f"{address}/predict"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def _key(request: Request) -> str:
    return request.headers.get("authorization", "")


def _printed(result: Result) -> str | Outcome:
    """Return all that a command printed, or what it is guilty of; tracebacks are asked for by `--debug`."""
    outcome = result.outcome
    asked_for = outcome.kind == "traceback" and "--debug" in result.words
    return result.stdout + result.stderr if outcome.kind in CLEAN or asked_for else outcome


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield f"{path.relative_to(folder)}", path.read_bytes()


def _forms(secret: str) -> set[bytes]:
    """Return a secret as it is, URL-encoded, escaped for JSON, and in base64 at each of the three alignments."""
    plain = secret.encode()
    forms = {plain, quote(secret).encode(), quote(secret, safe="").encode(), quote_plus(secret).encode()}
    forms |= {plain.hex().encode(), plain[: len(plain) // 2], plain[len(plain) // 2 :]}
    for shift in range(3):  # only what does not depend on what stands around it
        encoded = base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4]
        forms |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    return forms
