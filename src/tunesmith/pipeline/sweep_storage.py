"""Where Optuna keeps the trials of a sweep: a database, or a journal that processes on many machines append to."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.errors import FileError, MissingExtra, summary

JOURNAL, REDIS = "journal:", ("redis://", "rediss://")


def open_storage(address: str) -> Any:
    """Return the storage of an address: `journal:PATH`, `redis://host`, or the URL of a database."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import journal

    if address.startswith(JOURNAL):
        path = Path(address.removeprefix(JOURNAL)).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        return journal.JournalStorage(journal.JournalFileBackend(str(path)))
    if address.startswith(REDIS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return journal.JournalStorage(journal.JournalRedisBackend(address))
    return address  # which Optuna opens


@contextmanager
def errors_explained(address: str) -> Iterator[None]:
    """Turn errors of a storage into FileError. address: its URL, or its file."""
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise MissingExtra("a sweep needs optuna", found="not installed", do="pip install 'tunesmith[sweep]'") from None
    known: tuple[type[Exception], ...] = (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError)
    try:
        yield
    except Exception as error:
        redis: Any = sys.modules.get("redis")
        of_journal = address.startswith(JOURNAL) and isinstance(error, OSError | ValueError)
        if not (isinstance(error, known) or of_journal or (redis and isinstance(error, redis.RedisError))):
            raise
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        raise FileError(
            f"cannot use the Optuna storage {address}",
            expected="journal:sweep.journal, or a database that works, as sqlite:///sweep.db, postgresql://host/name "
            "or redis://host",
            found=summary(cause or error),
            do="check the address, the space left, and that the database's driver is installed",
        ) from error
