"""The shape of the code, held by a test: layers, doors, sizes, what may be imported by whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tunesmith"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = [
    {"errors", "types", "console", "hardware", "processes", "records"},
    {"recipe"},
    {"runs", "assets", "manifest"},
    {"tasks"},
    {"data"},
    {"protocols"},
    {"models"},
    {"evaluation", "endpoints"},
    {"training", "prediction", "judging", "exporting", "serving", "reporting"},
    {"pipeline"},
    {"classifier", "cli"},
    {"__init__", "__main__"},
]
"""A module may import what stands above it, and its own package; stages (training, prediction, ...) not each other."""
MAY_SEE = {
    ("pipeline", "__init__"),
    ("serving", "__init__"),
    ("hardware", "__init__"),
    ("cli", "__init__"),
    ("reporting", "__init__"),
}
"""Exceptions: `tunesmith.__version__`."""

DOORS = {
    "transformers": {
        "models/pretrained.py",
        "models/gguf_import.py",
        "models/quantize.py",
        "models/architectures.py",
        "models/unpadding.py",
    },
    "peft": {"models/adapters.py"},
    "bitsandbytes": {"models/quantize.py"},
    "deepspeed": {"training/zero.py"},
    "sklearn": {"models/linear.py", "classifier.py"},
    "datasets": {"data/hub.py"},
    "gguf": {"exporting/gguf.py"},
    "onnxruntime": {"exporting/onnx.py"},
    "tokenizers": {"exporting/network.py", "exporting/standalone.py"},
    "pyarrow": {"data/formats.py"},
    "matplotlib": {"pipeline/run_report.py"},
    "jinja2": {"reporting/page.py", "judging/judge_prompts.py"},
    "rouge_score": {"evaluation/text_overlap.py"},
    "sacrebleu": {"evaluation/text_overlap.py"},
    "httpx2": {"endpoints/client.py"},
    "fastapi": {"serving/app.py", "serving/handlers.py", "serving/openapi_schema.py"},
    "starlette": {"serving/app.py"},
    "uvicorn": {"serving/server.py"},
    "prometheus_client": {"serving/prometheus.py"},
}
"""Heavy packages and the only files that may import them."""

WITHOUT_TORCH = [
    "tunesmith",
    "tunesmith.cli",
    "tunesmith.recipe.document",
    "tunesmith.runs",
    "tunesmith.data",
    "tunesmith.data.response_files",
    "tunesmith.models.linear",
    "tunesmith.reporting.classification_report",
    "tunesmith.evaluation.label_pairs",
    "tunesmith.pipeline.commands.train",
    "tunesmith.pipeline.commands.compare",
    "tunesmith.pipeline.commands.predict",
    "tunesmith.pipeline.commands.evaluate",
    "tunesmith.judging.judge_runner",
    "tunesmith.pipeline.commands.judge",
    "tunesmith.pipeline.external_scores",
    "tunesmith.pipeline.commands.pseudo_label",
    "tunesmith.pipeline.commands.export",
    "tunesmith.exporting.onnx",
    "tunesmith.pipeline.commands.serve",
    "tunesmith.serving.app",
    "tunesmith.serving.server",
]


def part(path: Path) -> str:
    """The layer's name of a file: its package, or the module itself."""
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module (`tunesmith.data.labels`, `torch`) with its line; imports inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inside if is_module(name)]
            yield from ((name, node.lineno) for name in modules or [node.module])


def is_module(name: str) -> bool:
    path = SOURCE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists() or name == "tunesmith.__version__"


def own(path: Path) -> Iterator[tuple[str, int]]:
    for name, line in imports(path):
        if name.startswith("tunesmith."):
            target = name.split(".")[1]
            yield ("__init__" if target.startswith("__version") else target), line


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {part(path) for path in FILES} <= known


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    here = part(path)
    level = next(number for number, names in enumerate(LAYERS) if here in names)
    ground = LAYERS[0] | LAYERS[2]
    for target, line in own(path):
        if target == here or (here, target) in MAY_SEE:
            continue
        above = set().union(*LAYERS[:level])
        # the lowest layers may see each other: assets speak to the user, errors are raised everywhere
        allowed = above | (ground if here in ground else set())
        assert target in allowed, f"{path}:{line} imports {target}"


def test_no_import_cycle_between_modules() -> None:
    graph = {}
    for path in FILES:
        name = ".".join(["tunesmith", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
        graph[name] = {target for target, _ in imports(path) if target.startswith("tunesmith")}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done or name not in graph or name == "tunesmith":
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", DOORS)
def test_one_door_per_heavy_dependency(package: str) -> None:
    found = {
        str(path.relative_to(SOURCE)) for path in FILES for name, _ in imports(path) if name.split(".")[0] == package
    }
    assert found == DOORS[package]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            parameters = len(node.args.args) + len(node.args.kwonlyargs) + len(node.args.posonlyargs)
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
            assert parameters <= 8 + (node.args.args[:1] != [] and node.args.args[0].arg in ("self", "cls")), node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_unsafe(path: Path) -> None:
    """No pickle, no unsafe loaders, no evaluation of text, no shell."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "yaml.load", "yaml.full_load", "joblib.load", "os.system"}, node.lineno
            assert not name.startswith(("pickle.", "marshal.", "shelve.")), node.lineno
            assert name != "torch.load" or "weights_only=True" in ast.unparse(node), node.lineno
            assert "shell=True" not in ast.unparse(node) or not name.startswith("subprocess"), node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_print_only_on_the_command_line(path: Path) -> None:
    if part(path) in ("cli", "console"):
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [call.lineno for call in calls if ast.unparse(call.func) == "print"]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_imports_without_torch(module: str) -> None:
    heavy = {"torch", "transformers", "sklearn", "datasets", "scipy", "rouge_score", "sacrebleu"}
    code = f"import sys, {module}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_whole_recipe_is_seen_only_at_the_top() -> None:
    seers = {
        part(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "Recipe" for alias in node.names)
    }
    assert seers <= {"recipe", "pipeline", "runs"}


def test_the_readme_maps_every_module() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in FILES if path.name not in ("__init__.py", "__main__.py")}
    assert sorted(name for name in names if name not in readme) == []


def test_every_public_function_is_documented() -> None:
    bare = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []
