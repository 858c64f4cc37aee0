"""Recipes: defaults, aliases, overrides, and every problem named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tunesmith import recipe as recipes
from tunesmith.errors import FileError, RecipeError
from tunesmith.recipe import document
from tunesmith.recipe.aliases import ALIASES, TRAINING

FOREIGN = Path(__file__).parent / "foreign"
"""Files as users of other tools have them; tests/recipes/test_recipes.py trains them."""


def problems(source: object, overrides: list[str] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        recipes.load(source, overrides or [])  # type: ignore[arg-type]
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_dump_and_load_give_the_same_recipe() -> None:
    recipe = recipes.load({"method": "linear"}, ["train.class_weights={a: 2, b: 1}", "linear.char_ngrams=[2, 4]"])
    assert recipes.load(yaml.safe_load(recipes.dump(recipe))) == recipe


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("train.learning_rate=1e-4", "train", "learning_rate", 1e-4),
        ("learning_rate=1e-4", "train", "learning_rate", 1e-4),
        ("lr=1e-4", "train", "learning_rate", 1e-4),
        ("cutoff_len=64", "model", "max_length", 64),
        ("eval_strategy=no", "evaluate", "eval_strategy", "no"),
        ("class_weights=no", "train", "class_weights", "none"),
        ("train.class_weights.spam=3", "train", "class_weights", {"spam": 3.0}),
        ("report_to=tensorboard", "evaluate", "report_to", ("tensorboard",)),
        ("report_to=none", "evaluate", "report_to", ()),
        ("data.text=Review: text", "data", "text", "Review: text"),
        ("validation_size=100", "split", "validation_size", 100),
        ("max_grad_norm=0", "train", "max_grad_norm", 0.0),
    ],
)
def test_overrides(override: str, section: str, name: str, value: object) -> None:
    assert getattr(getattr(recipes.load({}, [override]), section), name) == value


def test_aliases_are_said_aloud_and_reach_real_settings(capsys: pytest.CaptureFixture[str]) -> None:
    names = {name for name, _ in recipes.fields()}
    assert set(ALIASES.values()) <= names
    recipe = recipes.load({"num_epochs": 2, "train": {"micro_batch_size": 4}, "model": {"base_model": "x/y"}})
    assert (recipe.train.num_train_epochs, recipe.train.per_device_train_batch_size) == (2, 4)
    assert recipe.model.name_or_path == "x/y"
    assert "num_epochs means train.num_train_epochs" in capsys.readouterr().err


def test_all_problems_at_once_with_lines_and_suggestions(tmp_path: Path) -> None:
    text = "method: encodr\ntrain:\n  learning_rte: 1\n  num_train_epochs: -3\nmodle:\n  max_length: 3\n"
    message = problems(write(tmp_path, text), ["seed=x", "max_lenth=4", "nonsense"])
    for part in (
        "7 problems",
        "line 1: method: input should be 'linear', 'probe', 'encoder', 'encoder:contrastive', 'generator' or",
        "line 3: train.learning_rte: no such setting; did you mean train.learning_rate?",
        "line 4: train.num_train_epochs: input should be greater than or equal to 0",
        "line 5: modle: no such setting; did you mean model?",
        "seed: input should be a valid integer",
        "max_lenth: no such setting; did you mean model.max_length?",
        "nonsense: an override is written section.name=value",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train: [1, 2", "recipe.yaml:1: not YAML"),
        (
            "a: 1\nb: &a [x]",
            "recipe.yaml:2: a recipe has no YAML anchors and aliases, such as &a\n  do: write",
        ),
        (
            "a: {b: *a}",
            "recipe.yaml:1: a recipe has no YAML anchors and aliases, such as *a\n  do: write",
        ),
        ("data: {label: no}", "valid string, not False; put quotes around yes, no"),
        ("train: {learning_rate: 1e999}", "finite number, not inf"),
        ("train: {learning_rate: .nan}", "finite number, not nan"),
        ("x" * (2**20 + 1), "at most 1 MB of settings"),
        ("evaluate: {bootstrap_samples: 1000000000}", "less than or equal to 100000"),
        ("train: {per_device_train_batch_size: 10000000000}", "less than 2 ** 31"),
        ("a: " + "[" * 1000, "more than 20 levels"),
        ("seed: !!int 'x'", "a value is not of the type that its tag says"),
        ("seed: 1\nseed: 2\n", "recipe.yaml:2: seed is set twice"),
        ("!!set {seed, task}\n", "recipe.yaml:1: not YAML"),
        ("data: {label: !!timestamp x}\n", "recipe.yaml:1: not YAML"),
        ("model: {name_or_path: 'https://host/x/y'}\n", "not an address: of a hub model give ORG/NAME"),
        ("judge: {model: !!set {a}}\n", "recipe.yaml:1: not YAML"),
        ("train: {max_steps: yes}\n", "line 1: train: max_steps is a number, not True"),
        ("linear: {word_ngrams: [yes, 2]}\n", "a number is meant, not True"),
        ("train: {class_weights: {a: yes, b: 2}}\n", "a number is meant, not True"),
        ("- a\n- b\n", "not a recipe"),
        ("train:\n  lr: 1\n  learning_rate: 2\n", "lr and train.learning_rate are the same setting"),
        ("data: {path: a.csv, train: b.csv}\n", "path and train exclude each other"),
        ("data: {test: b.csv}\n", "validation and test need train"),
        ("linear: {word_ngrams: [3, 1]}\n", "1 <= shortest <= longest"),
        ("linear: {word_ngrams: [1, 1000000]}\n", "longest <= 20"),
        ("linear: {word_ngrams: null}\n", "cannot both be null"),
        ("!!python/object/apply:os.system ['true']\n", "not"),
        ("train: 3\n", "train"),
        ("? [a, b]\n: 1\n", "recipe.yaml"),
    ],
)
def test_broken_recipes(tmp_path: Path, text: str, part: str) -> None:
    assert part in problems(write(tmp_path, text))


def test_labels_may_be_numbers_and_sections_empty(tmp_path: Path) -> None:
    text = "train:\nlr: 1e-3\ndata:\n  label_names: [0, 1]\n"
    recipe = recipes.load(write(tmp_path, text), ["train.class_weights={0: 1, 1: 2}"])
    assert recipe.train.class_weights == {"0": 1.0, "1": 2.0}
    assert recipe.data.label_names == ("0", "1")
    assert recipe.train.learning_rate == 1e-3
    assert "in quotes" in problems({}, ["data.label_names=[no, yes]"])


@pytest.mark.parametrize("order", ["lr: 1\ntrain: {learning_rate: 2}\n", "train: {learning_rate: 2}\nlr: 1\n"])
def test_an_alias_beside_its_setting_is_refused_in_any_order(tmp_path: Path, order: str) -> None:
    assert "are the same setting" in problems(write(tmp_path, order))


@pytest.mark.parametrize("text", ["train: bert\n", "train: bert\nlr: 1e-3\n"])
def test_a_section_of_the_wrong_shape_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    assert "line 1: train: input should be" in problems(write(tmp_path, text), ["train.max_steps=3"])


def test_an_override_may_turn_a_word_into_weights(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {class_weights: none}\n")
    assert recipes.load(path, ["train.class_weights.pos=3"]).train.class_weights == {"pos": 3.0}


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    """What YAML 1.1 reads as octal, hexadecimal or sexagesimal numbers or dates are names of labels and columns."""
    names = ("010", "0x1F", "1:30", "1_000", "2026-01-31", "1e4", "12")
    text = "data: {label: 12:30, label_names: [010, 0x1F, 1:30, 1_000, 2026-01-31, '1e4', 12]}\ntrain: {lr: 1e-3}\n"
    recipe = recipes.load(write(tmp_path, text + "model: {from_config: {layer_norm_eps: 1e-5}}\n"))
    assert (recipe.data.label_names, recipe.data.label, recipe.train.learning_rate) == (names, "12:30", 1e-3)
    assert recipe.model.from_config == {"layer_norm_eps": 1e-5}
    assert recipes.load(write(tmp_path, recipes.dump(recipe))) == recipe


@pytest.mark.parametrize("text", ["topic #1", "#1", "&name", "*", "!urgent", "a: b", "--- x", "'a #b'", "", "null"])
def test_an_override_is_taken_whole(text: str) -> None:
    expected = {"'a #b'": "a #b", "": None, "null": None}.get(text, text)
    assert recipes.load({}, [f"data.text_pair={text}"]).data.text_pair == expected


@pytest.mark.parametrize("value", ["{}", "0", "{a: 1}"])
def test_what_is_no_list_is_not_taken_as_an_empty_one(value: str) -> None:
    with pytest.raises(RecipeError, match=r"judge\.model: input should be a valid tuple"):
        recipes.load({}, [f"judge.model={value}"])
    assert recipes.load({}, ["judge.model=no"]).judge.model == ()


def test_a_space_separates_labels() -> None:
    assert recipes.load({}, ["task=multilabel", "data.label_separator= "]).data.label_separator == " "


def test_an_override_that_sets_a_key_twice_is_refused() -> None:
    assert recipes.load({}, ["data.label=!!timestamp x"]).data.label == "!!timestamp x"
    assert "train.class_weights:1: a is set twice" in problems({}, ["train.class_weights={a: 1, b: 2, a: 3}"])
    assert recipes.load({}, ["prompt.system=a: 1\na: 2"]).prompt.system == "a: 1\na: 2"


@pytest.mark.parametrize(
    "text",
    [
        "data: {text: [%s]}",
        "method: %s",
        "%s: 1",
        "train: {%s: 1}",
        "epochs: %s",
        "seed: 1 %s",
        "fp16: %s",
    ],
)
def test_long_values_are_echoed_in_part(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "x\n")
    for long in ("x" * 100_000, "x " * 50_000):
        path.write_text(text.replace("%s", f"'{long}'"))
        assert len(problems(path)) < 1500
        assert len(problems({}, [text.replace("%s", long)])) < 1500


def test_a_variant_as_a_method_is_refused_with_its_settings() -> None:
    message = problems({}, ["method=generator:lora"])
    assert "method=generator adapter.kind=lora (only compare's --methods takes variants)" in message
    recipes.load({}, ["method=generator", "adapter.kind=lora"])
    assert "compare" not in problems({}, ["method=generator:lore"])


def test_many_problems_are_listed_in_part(tmp_path: Path) -> None:
    message = problems(write(tmp_path, "".join(f"unknown{number}: 1\n" for number in range(20_000))))
    assert message.startswith(f"{tmp_path / 'recipe.yaml'}: more than 50 problems")
    assert message.count("\n") == 50


def test_paths_that_cannot_exist_are_no_tracebacks(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    assert recipes.load({}, [f"data.path={long}", "model.name_or_path=~nobody-of-this-name/x"]).data.path == long
    with pytest.raises(FileError, match="File name too long") as caught:
        recipes.load(Path(f"{long}.yaml"))
    assert len(str(caught.value)) < 1500
    assert "zero byte" in problems(Path("a\0b.yaml"))


def test_an_ambiguous_bare_name_is_refused() -> None:
    assert "choose data.train or split.train" in problems({}, ["train=x.csv"]) or "train" in problems({}, ["test=x"])
    assert "ambiguous, choose data.test or split.test" in problems({}, ["test=x"])


def test_a_bare_name_is_a_setting_that_the_run_uses(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipes.load({}, ["model=xlnet-base-cased", "data=reviews.csv"])
    assert (recipe.model.name_or_path, recipe.data.path, recipe.judge.model) == ("xlnet-base-cased", "reviews.csv", ())
    assert "model means model.name_or_path" in capsys.readouterr().err
    assert recipes.load({}, ["model=gpt-5"], sections=("judge",)).judge.model == ("gpt-5",)
    assert recipes.load({}, ["engine=onnx"], sections=("serve",)).serve.engine == "onnx"
    assert recipes.load({}, ["batch_size=3"], sections=("generate",)).generate.batch_size == 3
    assert recipes.load({}, ["guard.mask=email"], sections=("serve",)).serve.guard.mask == ("email",)


@pytest.mark.parametrize(
    ("override", "sections", "candidates"),
    [
        ("url=http://x/v1", TRAINING, "did you mean endpoint.url or judge.url?"),
        ("port=9000", TRAINING, "did you mean serve.port?"),
        ("revision=abc", TRAINING, "ambiguous, choose model.revision or data.revision"),
        ("model=x", ("serve",), "did you mean model.name_or_path or endpoint.model or judge.model?"),
    ],
)
def test_a_bare_name_of_no_section_or_several_lists_the_candidates(
    override: str, sections: tuple[str, ...], candidates: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.load({}, [override], sections=sections)
    assert candidates in str(caught.value)


def test_settings_of_endpoints_need_their_section() -> None:
    recipe = recipes.load({}, ["temperature=0.5", "shots=2", "endpoint.temperature=0.9", "endpoint.shots=4"])
    assert (recipe.generate.temperature, recipe.endpoint.temperature) == (0.5, 0.9)
    assert (recipe.prompt.shots, recipe.endpoint.shots) == (2, 4)


def test_a_file_of_llama_factory_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipes.load(FOREIGN / "llama_factory.yaml")
    assert (recipe.task, recipe.method, recipe.prompt.template) == ("instruction", "generator", "chat")
    assert (recipe.adapter.kind, recipe.adapter.r, recipe.adapter.lora_alpha) == ("lora", 4, 8)
    assert (recipe.model.name_or_path, recipe.data.path, recipe.model.max_length) == ("./model", "rows.json", 300)
    assert (recipe.train.learning_rate, recipe.train.gradient_accumulation_steps) == (1e-3, 2)
    assert (recipe.split.validation_size, recipe.split.max_samples, recipe.evaluate.eval_steps) == (0.1, 40, 2)
    notes = capsys.readouterr().err
    for note in (
        "template=llama3 means prompt.template=chat",
        "plot_loss has no effect",
        "packing=True means what is done",
    ):
        assert note in notes


def test_a_file_of_trl_is_understood() -> None:
    recipe = recipes.load(FOREIGN / "trl.yaml")
    assert (recipe.task, recipe.adapter.kind, recipe.engine.layout) == ("instruction", "lora", "padded")
    assert (recipe.train.max_steps, recipe.engine.gradient_checkpointing, recipe.split.test) == (None, True, "none")


def test_a_file_of_transformers_is_understood() -> None:
    recipe = recipes.load(FOREIGN / "transformers.yaml")
    assert (recipe.task, recipe.data.train, recipe.data.text, recipe.data.label) == (
        "classification",
        "rows.csv",
        "body",
        "topic",
    )
    assert (recipe.seed, recipe.train.max_steps, recipe.model.max_length) == (7, 3, 32)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("load_in_4bit: true\nuse_peft: true\n", "adapter.kind", "qlora"),
        ("finetuning_type: lora\nquantization_bit: 4\n", "adapter.kind", "qlora"),
        ("adapter: qlora\n", "adapter.kind", "qlora"),
        ("bf16: true\n", "engine.mixed_precision", "bf16"),
        ("train: {fp16: true}\n", "engine.mixed_precision", "fp16"),
        ("model: x/y\n", "model.name_or_path", "x/y"),
        ("max_samples: 9\n", "split.max_samples", 9),
        ("train.learning_rate: 1.0e-3\n", "train.learning_rate", 1e-3),
    ],
)
def test_flat_names_and_values_of_other_tools(tmp_path: Path, text: str, path: str, value: object) -> None:
    section, name = path.split(".")
    assert getattr(getattr(recipes.load(write(tmp_path, text)), section), name) == value


def test_flat_names_that_are_wrong_name_their_line(tmp_path: Path) -> None:
    text = "seed: 1\nlearning_rte: 1\nstage: rm\nrevision: abc\nlearning_rate: 1\nlr: 2\nload_in_8bit: true\nurl: x\n"
    message = problems(write(tmp_path, text))
    for part in (
        "line 2: learning_rte: no such setting; did you mean train.learning_rate?",
        "line 3: stage=rm: not offered; stage may be sft or pt",
        "line 4: revision: ambiguous, choose model.revision or data.revision",
        "line 6: lr and train.learning_rate are the same setting: keep one",
        "line 7: load_in_8bit=True: not offered",
        "line 8: url: this run uses no setting of this name; did you mean endpoint.url or judge.url?",
    ):
        assert part in message


def test_values_of_other_tools_follow_on_the_command_line() -> None:
    recipe = recipes.load({}, ["bf16=true", "stage=sft", "use_peft=true"])
    assert (recipe.task, recipe.adapter.kind, recipe.engine.mixed_precision) == ("instruction", "lora", "bf16")


def test_missing_file_suggests_a_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\n")
    assert "did you mean recipe.yaml" in problems(tmp_path / "recipes.yaml")


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert recipes.load(write(tmp_path, "# nothing\n")) == recipes.Recipe()


def test_local_paths_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    recipe = recipes.load({}, ["data.path=a.csv"])
    assert recipe.data.path == str(tmp_path / "a.csv")


def test_every_setting_is_explained() -> None:
    assert [name for name, field in recipes.fields() if not field.description] == []


def test_the_starter_loads_and_differs_from_the_defaults_only_where_it_says_so(tmp_path: Path) -> None:
    text = document.init("classification")
    started, default = (dict(_flat(r.model_dump())) for r in (recipes.load(write(tmp_path, text)), recipes.Recipe()))
    differing = {name for name in started if started[name] != default[name]}
    assert differing == set(document.STARTS["classification"])
    assert text.count("[set] ") == len(differing)


def _flat(tree: dict, prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def test_a_recipe_read_twice_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("method: generator\nmodel: {from_config: {model_type: gpt2, n_layer: 2}}\n", encoding="utf-8")
    first = recipes.load(path, ["model.from_config.n_layer=3"])
    monkeypatch.setattr(yaml.SafeLoader, "get_single_node", None)
    second = recipes.load(path)
    assert first.model.from_config == {"model_type": "gpt2", "n_layer": 3}
    assert second.model.from_config == {"model_type": "gpt2", "n_layer": 2}, (
        "overrides of one reading must not show in the next"
    )
