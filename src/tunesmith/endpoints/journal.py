"""An append-only journal of replies: one line per request, written as it comes, so that a killed run can continue."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from tunesmith import records
from tunesmith.endpoints.chat_client import ClientIdentity
from tunesmith.errors import EndpointError, RunError
from tunesmith.types import Message

KEY = "key"


class JournalRecord(Protocol):
    """A dataclass with what is kept of one request."""

    @property
    def failure(self) -> str:
        """Why there is no reply; empty where there is one."""
        ...


Record = TypeVar("Record", bound=JournalRecord)


class Journal(Generic[Record]):
    """A JSON Lines file of records by request key; of several lines with one key, the last counts."""

    def __init__(self, path: Path, kind: type[Record]) -> None:
        """Read what is there already. Raises EndpointError, naming the line, where the file is damaged."""
        self.path = path
        self.records: dict[str, Record] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self.records[entry[KEY]] = records.load(kind, entry, str(path))
            except (ValueError, LookupError, TypeError, RunError):
                raise EndpointError(
                    f"{path}:{number}: damaged", found=repr(line[:60]), do="delete the line; the request is sent again"
                ) from None
        if len(whole) < len(content):  # a kill cut the last line: without its end the next would be glued to it
            os.truncate(path, len(whole))

    def has_reply(self, key: str) -> bool:
        """Whether a reply is recorded; a request that failed has none, and is sent again by the next run."""
        return key in self.records and not self.records[key].failure

    def add(self, key: str, record: Record) -> None:
        """Append one record, as one whole line."""
        line = json.dumps({KEY: key, **records.dump(record)}, ensure_ascii=False)
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
        self.records[key] = record


def file_name(name: str, identity: ClientIdentity) -> str:
    """Return `llama3-1f2e3d.jsonl`: the client's name, and a hash of its address, as names can be the same."""
    address = json.dumps([identity.api, identity.url, identity.model])
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "model"
    return f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:6]}.jsonl"


def request_key(identity: ClientIdentity, messages: Sequence[Message], seed: int) -> str:
    """Return the key of a request: a hash of client, conversation and seed."""
    whole = json.dumps(records.dump([identity, messages, seed]), sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]
