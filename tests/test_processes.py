"""What a process does while it loads libraries and models."""

from __future__ import annotations

import atexit
import contextvars
import gc
import importlib
import sys

import pytest

from tunesmith import processes


def test_the_garbage_collector_is_paused_while_something_loads() -> None:
    frozen = gc.get_freeze_count()
    with processes.loading():
        assert not gc.isenabled()
        with processes.loading():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen, "a program that imports tunesmith keeps its own objects collectable"


def test_what_a_process_of_one_command_loads_is_not_collected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[object] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)

    def command() -> None:
        processes.run_one_command()
        with processes.loading():
            pass

    try:
        contextvars.copy_context().run(command)
        assert gc.get_freeze_count() > 0
        assert at_exit == [gc.freeze]
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_process_of_one_command_leaves_out_what_a_library_would_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atexit, "register", lambda function: None)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    def importable(name: str) -> bool:
        with processes.without(name):
            try:
                importlib.import_module(name)
            except ImportError:
                return False
        return True

    def command() -> None:
        processes.run_one_command()
        assert not importable("colorsys")
        assert importable("json"), "it was imported before"

    contextvars.copy_context().run(command)
    assert "colorsys" not in sys.modules
    assert importable("colorsys"), "in a program of somebody else all is as it was"
