"""Every serving figure of docs/benchmarks.md, in about 14 minutes on two quiet cores.

    python benchmarks/serve_all.py --train D/ag_news/train.csv --texts D/ag_news/test.csv --folder OUTPUT

Trains MiniLM on 420 rows and SmolLM2-135M for one step, exports, and runs serve.py and keep_alive.py one after another.
OUTPUT gets a JSON file for each measurement, and `serving.md` with a row for each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ONE = {"OMP_NUM_THREADS": "1"}
TWO: dict[str, str] = {}
"""Both sides with one thread for each model, or with as many as there are cores."""
ROUNDS = ["--rounds", "5", "--seconds", "4"]
MEASUREMENTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "keep_alive": (TWO, []),
    "torch-2": (TWO, [*ROUNDS, "--set", "serve.engine=torch"]),
    "onnx-2": (TWO, [*ROUNDS, "--set", "serve.engine=onnx"]),
    "int8-2": (TWO, [*ROUNDS, "--set", "serve.engine=onnx-int8"]),
    "torch-1": (ONE, [*ROUNDS, "--set", "serve.engine=torch"]),
    "onnx-1": (ONE, [*ROUNDS, "--set", "serve.engine=onnx"]),
    "int8-1": (ONE, [*ROUNDS, "--set", "serve.engine=onnx-int8"]),
    "torch-1-single": (ONE, [*ROUNDS, "--peer", "single", "--set", "serve.engine=torch"]),
    "overload-1": (ONE, ["--overload", "--seconds", "90", "--set", "serve.engine=torch"]),
    "overload-2": (TWO, ["--overload", "--seconds", "40", "--set", "serve.engine=torch"]),
    "half-1": (ONE, ["--latency", "--rounds", "4", "--seconds", "6", "--set", "serve.engine=torch"]),
    "half-2": (TWO, ["--latency", "--rounds", "4", "--seconds", "6", "--set", "serve.engine=torch"]),
    "leave": (TWO, ["--leave", "--rounds", "6", "--set", "serve.engine=torch"]),
}


def main() -> None:
    """Prepare the runs, make the measurements that were asked for, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="CSV with texts and labels for MiniLM")
    parser.add_argument("--texts", required=True, help="CSV with the texts of requests")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--only", nargs="*", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    encoder, generator = prepare(args.train, args.folder)
    lines = []
    for name in args.only:
        environment, words = MEASUREMENTS[name]
        output, start = args.folder / f"{name}.json", time.monotonic()
        script, more = "serve.py", words
        if name == "keep_alive":
            script, more = "keep_alive.py", ["--generator", str(generator), "--set", "serve.engine=torch"]
        common = ["--run", str(encoder), "--texts", args.texts, "--output", str(output)]
        variables = {name: value for name, value in os.environ.items() if name not in ONE} | environment
        command = [sys.executable, str(HERE / script), *common, *more]
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE)  # noqa: S603
        seconds = time.monotonic() - start
        result = json.loads(output.read_text()) if done.returncode == 0 else {"failed": done.returncode}
        lines.append(f"- **{name}** ({seconds:.0f} s): {shown(result)}")
        print(lines[-1], flush=True)
        (args.folder / "serving.md").write_text("\n".join(lines) + "\n")


def prepare(train: str, folder: Path) -> tuple[Path, Path]:
    """Return a MiniLM run on 420 training rows with its ONNX exports, and a SmolLM2-135M run; made if missing."""
    encoder, generator = folder / "minilm", folder / "smollm2"
    if not (encoder / "report.html").exists():
        shutil.rmtree(encoder, ignore_errors=True)  # of a run that was interrupted
        sizes = ["split.max_samples=600", "split.validation_size=90", "split.test_size=90", "max_length=128"]
        model = ["name_or_path=pypi:all-minilm-l6-v2", "learning_rate=3e-4", "num_train_epochs=3"]
        tunesmith("train", train, "method=encoder", *sizes, *model, "--run-dir", str(encoder))
    for target in ("onnx", "onnx-int8"):
        if not (encoder / "export" / target).exists():
            tunesmith("export", str(encoder), "--to", target, "--allow-loss")  # one label of 50 may differ in 8 bits
    if not (generator / "report.html").exists():
        shutil.rmtree(generator, ignore_errors=True)
        pairs = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(24)]
        (folder / "pairs.json").write_text(json.dumps(pairs))
        words = ["method=generator", "task=instruction", "name_or_path=pypi:smollm2-135m-instruct", "max_steps=1"]
        words += ["evaluate.max_responses=0", "evaluate.num_samples=0", "evaluate.base=false", "max_length=256"]
        tunesmith("train", str(folder / "pairs.json"), *words, "--run-dir", str(generator))
    return encoder, generator


def tunesmith(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "tunesmith", *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def shown(result: dict[str, Any]) -> str:
    """The figures on one line, without those of single rounds."""
    flat: dict[str, Any] = {}
    for name, value in result.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name} {key}".strip(): item for key, item in inner.items() if name != "rounds"}
    return ", ".join(f"{name} {item}" for name, item in flat.items())


if __name__ == "__main__":
    main()
