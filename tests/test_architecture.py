"""The shape of the code, held by a test: layers, doors, sizes, what may be imported by whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tunesmith"
TREES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
}
"""The syntax tree of every module, by its path below `src/tunesmith`."""

LAYERS = [
    {"errors", "types", "console", "hardware", "processes", "records", "extensions", "disk"},
    {"recipe"},
    {"runs", "assets", "manifest", "autotuning", "integrity"},
    {"tasks"},
    {"data"},
    {"protocols"},
    {"models"},
    {"evaluation", "endpoints"},
    {"auditing"},
    {"training", "prediction", "judging", "exporting", "serving", "reporting"},
    {"pipeline"},
    {"estimators", "cli"},
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
        "exporting/decoder.py",
        "exporting/network.py",
        "exporting/onnx.py",
        "exporting/openvino.py",
        "exporting/torch_programs.py",
        "exporting/weights.py",
        "models/graphs.py",
        "models/llama_cpp.py",
        "models/pretrained.py",
        "models/generation_cache.py",
        "models/gguf_import.py",
        "models/quantize.py",
        "models/tiktoken_import.py",
        "models/architectures.py",
        "models/segment_attention.py",
        "training/optim.py",
        "data/template_sandbox.py",
    },
    "peft": {"models/adapters.py"},
    "bitsandbytes": {"models/quantize.py"},
    "deepspeed": {"training/zero.py"},
    "sklearn": {"estimators/classifiers.py", "estimators/regressor.py", "estimators/text_estimator.py"},
    "datasets": {"data/hub.py"},
    "gguf": {"exporting/gguf.py"},
    "llama_cpp": {"models/llama_cpp.py"},
    "onnxruntime": {"exporting/onnx.py", "exporting/run_generator.py", "models/graphs.py"},
    "openvino": {"models/openvino_import.py"},
    "tokenizers": {
        "exporting/network.py",
        "exporting/run_generator.py",
        "exporting/standalone.py",
        "models/tiktoken_import.py",
    },
    "python_calamine": {"data/workbooks.py"},
    "sqlalchemy": {"data/databases.py", "pipeline/sweep_storage.py"},
    "fsspec": {"data/downloads.py"},
    "pyarrow": {"data/example_table.py", "data/files.py", "data/formats.py", "data/row_encoders.py"},
    "PIL": {"reporting/loss_plot.py"},
    "jinja2": {"exporting/run_generator.py", "reporting/page.py", "data/template_sandbox.py"},
    "rensa": {"data/minhash.py"},
    "joblib": {"data/worker_processes.py"},
    "rouge_score": {"evaluation/text_overlap.py"},
    "sacrebleu": {"evaluation/text_overlap.py"},
    "httpx2": {"endpoints/client.py"},
    "fastapi": {"serving/app.py", "serving/handlers.py", "serving/openapi_schema.py"},
    "starlette": {"serving/app.py", "serving/middleware.py"},
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
    "tunesmith.pipeline.commands.explain",
    "tunesmith.pipeline.commands.evaluate",
    "tunesmith.pipeline.commands.audit",
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


def layer(module: str) -> str:
    """The layer's name of a module: its package, or the module itself."""
    return module.split("/")[0].removesuffix(".py")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call, and what is called as it is written: `torch.load`."""
    return ((node, ast.unparse(node.func)) for node in ast.walk(tree) if isinstance(node, ast.Call))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module (`tunesmith.data.labels`, `torch`) with its line; imports inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inside if is_module(name)]
            yield from ((name, node.lineno) for name in modules or [node.module])


def is_module(name: str) -> bool:
    path = SOURCE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists() or name == "tunesmith.__version__"


def repeated(names: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    """(name, place) pairs -> the places of every name that has several."""
    places: dict[str, list[str]] = {}
    for name, place in names:
        places.setdefault(name, []).append(place)
    return {name: where for name, where in places.items() if len(where) > 1}


def test_imports_point_down() -> None:
    levels = {name: level for level, names in enumerate(LAYERS) for name in names}
    assert {layer(module) for module in TREES} <= levels.keys()
    ground = LAYERS[0] | LAYERS[2]  # may see each other: assets speak to the user, errors are raised everywhere
    upward = []
    for module, tree in TREES.items():
        here = layer(module)
        for name, line in imports(tree):
            if not name.startswith("tunesmith."):
                continue
            target = "__init__" if name.startswith("tunesmith.__version") else name.split(".")[1]
            allowed = target == here or (here, target) in MAY_SEE or levels[target] < levels[here]
            if not allowed and not {here, target} <= ground:
                upward.append(f"{module}:{line} imports {name}")
    assert upward == []


def test_no_import_cycle_between_modules() -> None:
    graph = {}
    for module, tree in TREES.items():
        name = f"tunesmith/{module}".replace("/", ".").removesuffix(".py").removesuffix(".__init__")
        graph[name] = {target for target, _ in imports(tree) if target.startswith("tunesmith")}
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


def test_one_door_per_heavy_dependency() -> None:
    doors: dict[str, set[str]] = {package: set() for package in DOORS}
    for module, tree in TREES.items():
        for name, _ in imports(tree):
            if name.split(".")[0] in doors:
                doors[name.split(".")[0]].add(module)
    assert doors == DOORS


def test_sizes() -> None:
    too_large = [module for module, text in sources(SOURCE) if len(text.splitlines()) > 400]
    for module, tree in TREES.items():
        for node in functions(tree):
            length = (node.end_lineno or 0) - node.lineno + 1
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            if length > 60 or len(parameters) > 8:
                too_large.append(f"{module}:{node.lineno} {node.name}: {length} lines, {len(parameters)} parameters")
    assert too_large == []


def sources(folder: Path) -> Iterator[tuple[str, str]]:
    """Path and text of every Python file below a folder."""
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")


def test_nothing_unsafe() -> None:
    """No pickle, no unsafe loaders, no evaluation of text, no shell."""
    forbidden = {"eval", "exec", "yaml.load", "yaml.full_load", "joblib.load", "os.system"}
    unsafe = [
        f"{module}:{call.lineno} {name}"
        for module, tree in TREES.items()
        for call, name in calls(tree)
        if name in forbidden
        or name.startswith(("pickle.", "marshal.", "shelve."))
        or (name == "torch.load" and "weights_only=True" not in ast.unparse(call))
        or (name.startswith("subprocess") and "shell=True" in ast.unparse(call))
    ]
    assert unsafe == []


def test_everything_is_printed_by_console() -> None:
    """`console.show` lets no control character through; `check` and `explain` print colours of their own around
    escaped texts.

    `run_generator.py` is what an export runs without tunesmith.
    """
    printing = {module for module, tree in TREES.items() for _, name in calls(tree) if name == "print"}
    assert printing == {"console.py", "cli/experiments.py", "cli/explanations.py", "exporting/run_generator.py"}
    taken = {
        module: {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        for module, tree in TREES.items()
        if "tunesmith.console" in dict(imports(tree))
    }
    assert {layer(module) for module, names in taken.items() if "show" in names} == {"cli"}


def test_imports_without_torch() -> None:
    """Each in a process of its own would say which one it was; one process for all says it at the first that fails."""
    heavy = {"torch", "transformers", "sklearn", "datasets", "scipy", "rouge_score", "sacrebleu"}
    code = (
        "import sys, importlib\n"
        f"for name in {WITHOUT_TORCH}:\n"
        "    importlib.import_module(name)\n"
        f"    if loaded := {heavy} & set(sys.modules): sys.exit(f'{{name}} imports {{loaded}}')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_whole_recipe_is_seen_only_at_the_top() -> None:
    seers = {
        layer(module)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "Recipe" for alias in node.names)
    }
    assert seers <= {"recipe", "pipeline", "runs"}


def test_the_file_map_lists_every_module() -> None:
    """By path, each once, and nothing that is not there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = text[text.index("\nsrc/tunesmith/\n") :].split("```")[0].split("\n")[2:]
    mapped, folders = [], [""]
    for line in filter(None, block):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders[depth:] = [folders[depth - 1] + name]
        mapped += [folders[depth]] if name.endswith(".py") else []
    modules = [module for module in TREES if not module.endswith(("__init__.py", "__main__.py"))]
    assert sorted(mapped) == sorted(modules)


def test_no_two_modules_and_no_two_public_classes_of_one_name() -> None:
    names = ((Path(module).stem, module) for module in TREES)
    assert {name: places for name, places in repeated(names).items() if not name.startswith("__")} == {}
    classes = (
        (node.name, module)
        for module, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert repeated(classes) == {}


def test_every_public_function_is_documented() -> None:
    bare = [
        f"{module}:{node.lineno} {node.name}"
        for module, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []


TABLES = {
    "recipe/names.py",
    "recipe/sections.py",
    "recipe/document.py",
    "pipeline/task_table.py",
    "pipeline/fitting/methods.py",
}
"""Where tasks and methods may be told apart by name: the tables, and the checks of a recipe."""


def test_tasks_and_methods_are_compared_in_their_tables_only() -> None:
    from tunesmith.recipe.names import METHODS, TASKS

    def names(node: ast.AST) -> Iterator[ast.AST]:
        """The operands that are such a name, or hold one in a tuple, list or set."""
        parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
        for part in parts:
            if isinstance(part, ast.Constant) and part.value in {*METHODS, *TASKS}:
                yield part
            if isinstance(part, ast.Attribute) and part.attr in ("task", "method"):
                yield part

    found = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module, tree in TREES.items()
        if module not in TABLES
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.MatchValue)
        for operand in ([node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.value])
        if any(names(operand))
    ]
    assert found == []


def test_no_test_imports_from_a_test() -> None:
    """What several tests need is a module of its own: tests/tiny.py and its like."""
    borrowed = [
        f"{module} imports {name}"
        for module, text in sources(ROOT / "tests")
        for name, _ in imports(ast.parse(text))
        if any(part.startswith("test_") for part in name.split("."))
    ]
    assert borrowed == []
