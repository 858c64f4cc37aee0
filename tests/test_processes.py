"""What a process does while it loads libraries and models."""

from __future__ import annotations

import atexit
import contextvars
import gc

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
