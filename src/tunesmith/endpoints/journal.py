"""An append-only journal of replies: one line per request, written as it comes, so that a killed run can continue."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, TypeVar

from tunesmith import disk, records
from tunesmith.endpoints.chat_client import ClientIdentity, Json
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import EndpointError, RunError
from tunesmith.types import Message

KEY = "key"
BLOCK = 4096
"""Bytes to read at once in search of the last line's end."""


class JournalRecord(Protocol):
    """A dataclass with what is kept of one request."""

    @property
    def failure(self) -> str:
        """Why there is no reply; empty where there is one."""
        ...

    @property
    def usage(self) -> TokenUsage:
        """What the request used."""
        ...


Record = TypeVar("Record", bound=JournalRecord)


class Journal(Mapping[str, Record]):
    """A JSON Lines file of records by request key; of several lines with one key, the last counts.

    Only where each record stands is kept in memory. Several processes may append to one file; each knows the records
    that it found at its start, and its own.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        """Find what is there already. Raises EndpointError, naming the line, where the file is damaged."""
        self.path = path
        self._kind = kind
        self._offsets: dict[str, int] = {}
        self._failed: set[str] = set()
        disk.make_folder(path.parent)
        if not path.exists():
            return
        with self._locked() as file:
            _drop_cut_line(file)
            file.seek(0)
            offset = 0
            for number, line in enumerate(file, 1):
                try:
                    self._place(*self._parse(line), offset)
                except (ValueError, LookupError, TypeError, RunError):
                    raise EndpointError(
                        f"{path}:{number}: damaged",
                        found=repr(line[:60]),
                        do="delete the line; the request is sent again",
                    ) from None
                offset += len(line)

    def __getitem__(self, key: str) -> Record:
        """Read a record from the file. Raises KeyError; EndpointError where the file was changed meanwhile."""
        offset = self._offsets[key]
        with disk.explained("read", self.path), self.path.open("rb") as file:
            file.seek(offset)
            line = file.readline()
        with contextlib.suppress(ValueError, LookupError, TypeError, RunError):
            stored, record = self._parse(line)
            if stored == key:
                return record
        raise EndpointError(f"{self.path} was changed while it was in use", do="run the same command again")

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, key: object) -> bool:
        return key in self._offsets

    def has_reply(self, key: str) -> bool:
        """Whether a reply is recorded; a request that failed has none, and is sent again by the next run."""
        return key in self._offsets and key not in self._failed

    def add(self, key: str, record: Record) -> None:
        """Append one record, as one whole line. Raises FileError where the system refuses."""
        line = f"{json.dumps({KEY: key, **records.dump(record)}, ensure_ascii=False)}\n".encode()
        with self._locked() as file:
            offset = _drop_cut_line(file)
            file.write(line)
        self._place(key, record, offset)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """Open the file for this process alone. Where the file system has no locks, only one process may append."""
        with disk.explained("write", self.path), self.path.open("a+b") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _parse(self, line: bytes) -> tuple[str, Record]:
        entry = records.parse(line)
        return entry[KEY], records.load(self._kind, entry, str(self.path))

    def _place(self, key: str, record: Record, offset: int) -> None:
        self._offsets[key] = offset
        if record.failure:
            self._failed.add(key)
        else:
            self._failed.discard(key)


def _drop_cut_line(file: IO[bytes]) -> int:
    """Return the size of the whole lines; what a kill left of one more is cut off, or the next would be glued to it."""
    size = end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        file.truncate(end)
    return end


def file_name(name: str, identity: ClientIdentity) -> str:
    """Return `llama3-1f2e3d.jsonl`: the client's name, and a hash of its address, as names can be the same."""
    address = json.dumps([identity.api, identity.url, identity.model])
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "model"
    return f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:6]}.jsonl"


def request_key(
    identity: ClientIdentity,
    messages: Sequence[Message],
    seed: int,
    *,
    temperature: float = 0.0,
    schema: Json | None = None,
    top_logprobs: int = 0,
) -> str:
    """Return the key of a request: a hash of client, conversation, seed and parameters."""
    parameters = {"temperature": temperature, "schema": schema, "top_logprobs": top_logprobs}
    changed = {name: value for name, value in parameters.items() if value}  # keys without them are as they always were
    turns = [{"role": turn.role, "content": turn.content, "input": turn.input} for turn in messages]
    whole = json.dumps(records.dump([identity, turns, seed, *([changed] if changed else [])]), sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]
