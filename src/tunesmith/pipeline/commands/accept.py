"""`tunesmith runs accept`: takes the files of a run as they are, after they were changed on purpose."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

from tunesmith import integrity, runs
from tunesmith.errors import RunError, TunesmithError, summary
from tunesmith.pipeline import run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods
from tunesmith.runs import Run


def accept(run: str | Path | Run) -> dict[str, str]:
    """Record the files of a finished run as they are, and return what has changed: {file: how}.

    The manifest and the report keep a note of it. Raises RunError where the run cannot be used as it is.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    with integrity.disabled():
        changed = _differences(run)
        manifest = run.finished
        if not changed and run.decision(runs.HASHED) is not None:
            run_report.write_run(run)  # whoever was killed before may not have come to it
            return {}
        try:
            methods.load_predictor(run)
            if run.has("scores.json"):
                run_report.build([run], confidence_of(run.recipe))
        except Exception as error:  # a damaged file can fail anywhere
            reason = str(error) if isinstance(error, TunesmithError) else summary(error)
            raise RunError(f"cannot accept {run.path}: it cannot be used as it is", found=reason) from error
        if changed:
            notes = "; ".join(
                filter(None, [manifest.notes.accepted, f"{time.strftime('%Y-%m-%d')}: {', '.join(changed)}"])
            )
            manifest = replace(manifest, notes=replace(manifest.notes, accepted=notes))
        hashes = json.dumps(integrity.hashes(run.model), indent=2)
        runs.write_whole(run.model / runs.HASHES, hashes.encode())
        run.save_manifest(manifest)
    run_report.write_run(run)
    return changed


def _differences(run: Run) -> dict[str, str]:
    """Return what is not as the run wrote it."""
    recorded = run.decision(runs.HASHED)
    differences = (
        {}
        if recorded is None
        else {name: how for name, value in recorded.items() if (how := integrity.difference(run.path / name, value))}
    )
    text, signature = (run.path / runs.MANIFEST).read_bytes(), run.decision(runs.SHA256)
    if not (recorded is None and signature is None) and not integrity.is_signed(text, signature):
        differences[runs.MANIFEST] = integrity.CHANGED
    return differences | {f"model/{name}": how for name, how in integrity.differences(run.model).items()}
