"""Tables from databases: the rows of a query, a part at a time."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.data.downloads import NAMED, filled
from tunesmith.data.rows import Item, Row, Table, refuse_repeated
from tunesmith.errors import DataError, MissingExtra
from tunesmith.types import DataNote

BATCH = 1000
"""Rows that are fetched at once."""
ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)


class Result:
    """The rows of a query that runs; it can be iterated once, and then lets go of the database."""

    def __init__(self, name: str, connection: Any, result: Any, notes: list[DataNote], secrets: list[str]) -> None:
        self.name, self.connection, self.result, self.notes, self.secrets = name, connection, result, notes, secrets

    def __iter__(self) -> Iterator[Item]:
        from sqlalchemy.exc import SQLAlchemyError

        columns = tuple(self.result.keys())
        yield from self.notes
        try:
            for number, values in enumerate(self.result, 1):
                yield Row(f"{self.name}:row {number}", dict(zip(columns, values, strict=True)))
        except SQLAlchemyError as error:
            raise _failed(self.name, error, self.secrets) from error
        finally:
            self.close()

    def close(self) -> None:
        """End the query. What it may have changed is rolled back."""
        self.connection.close()

    def __del__(self) -> None:
        """Do so where nobody iterated, as another table was bad."""
        with contextlib.suppress(Exception):  # the garbage collector may have closed the connection before
            self.close()


def table(url: str, query: str, setting: str, part: str = "") -> Table:
    """Return the rows of a query. part: the name of the split, where a database has several, for ids.

    In the address, `${NAME}` stands for a variable of the environment, so that a password is written nowhere. Raises
    DataError with what the database says, without the address.
    """
    try:
        import sqlalchemy
    except ImportError:
        do = "pip install 'tunesmith[sql]'"
        raise MissingExtra("cannot read from a database: SQLAlchemy is not installed", do=do) from None
    secrets = [os.environ[name] for name in NAMED.findall(url) if os.environ.get(name)]
    try:
        address = sqlalchemy.make_url(filled(url, setting))
        name = Path(address.database or address.host or "database").name + (f":{part}" if part else "")
        secrets += [address.password] if address.password else []
        if address.get_backend_name() == "sqlite":
            _check_sqlite(address.database, setting)
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        connection = engine.connect()
    except ImportError as error:  # of the database's driver
        do = "install the driver, for instance `pip install psycopg` for postgresql+psycopg://"
        raise MissingExtra(f"{setting}: the driver of this database is not installed ({error.name})", do=do) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _failed(setting, error, secrets) from error
    try:
        options = {"stream_results": True, "yield_per": BATCH, "postgresql_readonly": True}
        connection = connection.execution_options(**options)
        if address.get_backend_name() == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
        result = connection.execute(sqlalchemy.text(query.replace(":", r"\:")))
        if not result.returns_rows:
            raise DataError(
                "data.sql: the statement returns no rows", expected="SELECT ...", found=query[:80], do="select rows"
            )
        columns = tuple(result.keys())
        refuse_repeated(name, columns)
    except sqlalchemy.exc.SQLAlchemyError as error:
        connection.close()
        raise _failed("data.sql", error, secrets) from error
    except DataError:
        connection.close()
        raise
    what = "the query has no ORDER BY: its rows may come in another order, which makes other splits (data.sql)"
    notes = [] if ORDERED.search(query) else [DataNote(what, 1, (name,))]
    return Table(name, columns, Result(name, connection, result, notes, secrets))


def _check_sqlite(database: str | None, setting: str) -> None:
    """Refuse a file that does not exist, which SQLite would make."""
    if database and database != ":memory:" and not database.startswith("file:") and not Path(database).is_file():
        raise DataError(
            f"{setting}: no such database: {database}",
            expected="a file of SQLite",
            found="nothing",
            do="check the path; an absolute one has four slashes, as in sqlite:////data/reviews.db",
        )


def _failed(where: str, error: Any, secrets: list[str]) -> DataError:
    found = " ".join(str(getattr(error, "orig", None) or error).split())[:400]
    for secret in secrets:
        found = found.replace(secret, "***")
    return DataError(
        f"{where}: the database refuses", expected="rows of a query", found=found, do="correct data.sql or the address"
    )
