"""The layers that a model repeats: what is compiled, and sharded, one by one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def repeated(model: nn.Module) -> Iterator[nn.Module]:
    """Members of the outermost lists of two or more modules of one class."""
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and id(module) not in inside:
            kinds = {type(member) for member in module}
            if len(module) > 1 and len(kinds) == 1:
                inside.update(id(part) for part in module.modules())
                yield from module
