"""Uploading exports to the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.console import say
from tunesmith.errors import RecipeError, RunError, summary

VARIABLE = "HF_TOKEN"
"""Environment variable with the key of the hub; it is read from nowhere else, and written nowhere."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A model repository to upload to."""

    name: str
    token: str = field(repr=False)

    @classmethod
    def open(cls, name: str) -> Repository:
        """Return the repository, without connecting. Raises RecipeError for other names, or without a key."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
            raise RecipeError(f"cannot push to {name}", expected="ORG/NAME")
        token = os.environ.get(VARIABLE, "").strip()
        if not token:
            raise RecipeError(f"cannot push to {name}: no key", do=f"set {VARIABLE} in the environment")
        return cls(name, token)

    def upload(self, folder: str | Path) -> None:
        """Upload an exported folder; a repository that does not exist yet is created as a private one.

        Raises RunError where the hub refuses, and for an adapter whose base model others cannot load.
        """
        from huggingface_hub import HfApi

        folder = Path(folder)
        if (adapter := folder / "adapter_config.json").exists():
            base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
            if Path(base).exists():
                raise RunError(
                    f"cannot push {folder}: its base model is only on this machine",
                    found=base,
                    do="export --to safetensors, which is a full model",
                )
        api = HfApi(token=self.token)
        try:
            api.create_repo(self.name, private=True, exist_ok=True)
            commit = api.upload_folder(repo_id=self.name, folder_path=folder, commit_message="Export by tunesmith")
        except Exception as error:  # of HTTP, of the hub or of its client: the export itself is written
            raise RunError(
                f"cannot push {folder} to {self.name}",
                found=summary(error).replace(self.token, "***"),
                do=f"check the name, the network, and that the key in {VARIABLE} may write there",
            ) from None
        say(f"pushed to {commit.commit_url}")
