"""Jinja templates of strangers, rendered within bounds: they come with models, tokenizers and recipes.

Jinja's sandbox keeps a template from Python's internals, but not from filling the memory (`'a' * 10**10`) or running
forever (two loops of 99,999). Here everything that a template can make large is counted against one budget, before it
is made where an operator, a method or a filter multiplies sizes; loops and calls look at the clock. Filters that no
count of operations can bound, or that give something else each time, do not exist.
"""

# ruff: noqa: N802, N815 - a NodeTransformer has methods named like the classes of nodes

from __future__ import annotations

import re
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from contextvars import ContextVar
from functools import cache, lru_cache, wraps
from typing import Any

from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

SIZE = 50_000_000
"""Characters and items that one rendering may make, intermediate values included."""
SECONDS = 2
"""How much of a processor's time one rendering may take: a busy machine refuses no template that others render."""
LOOK = 100_000
"""The clock is looked at each time that so much was spent, and at every call and comparison."""
SOURCE = 100_000
"""Characters of a template."""
MULTIPLYING = {"batch", "center", "expandtabs", "format", "format_map", "indent", "join", "ljust", "replace", "rjust"}
MULTIPLYING |= {"slice", "tojson", "translate", "zfill"}
"""Methods and filters whose result can be as large as the product of what they are given."""
UNBOUNDED = ("pprint", "random", "striptags", "sum", "urlize", "wordwrap", "xmlattr")
EQUAL = ("!=", "==", "eq", "equalto", "ne")
ORDER = ("<", "<=", ">", ">=", "ge", "greaterthan", "gt", "le", "lessthan", "lt")
LAZY = (Iterator, range, set, frozenset, KeysView, ValuesView, ItemsView)
FORMATS = ("%", "format", "format_map")
WIDTH = re.compile(r"%[^a-zA-Z%]*\d{5}|\{[^{}]*:[^{}]*(?:\d{5}|\{)")


class LimitExceeded(Exception):
    """A template makes too much, or takes too long."""


class _Budget:
    """What a rendering may still spend. Most spending only counts; from time to time it looks at the clock."""

    def __init__(self) -> None:
        self.total = SIZE
        self.until_look = LOOK
        self.end = time.thread_time() + SECONDS

    def spend(self, size: int) -> None:
        self.until_look -= size + 1
        if self.until_look < 0:
            self.look()

    def look(self) -> None:
        self.total -= LOOK - self.until_look
        self.until_look = LOOK
        if self.total < 0:
            raise LimitExceeded(f"it makes more than {SIZE:,} characters or items")
        if time.thread_time() > self.end:
            raise LimitExceeded(f"it takes more than {SECONDS} seconds of processor time")


_BUDGET: ContextVar[_Budget] = ContextVar("budget of the rendering in progress")


@lru_cache(32)
def chat_template(source: str) -> Template:
    """Return a template with what transformers offers to chat templates."""
    return _compile(_chat_environment(), source)


def strict_template(source: str) -> Template:
    """Return a template in which a name without a value is an error."""
    return _compile(BoundedEnvironment(undefined=StrictUndefined), source)


def render(template: Template, **values: object) -> str:
    """Return the text of a template. Raises LimitExceeded beyond the bounds, and whatever the template raises."""
    token = _BUDGET.set(_Budget())
    try:
        return template.render(values)
    finally:
        _BUDGET.reset(token)


def _compile(environment: BoundedEnvironment, source: str) -> Template:
    if len(source) > SOURCE:
        raise LimitExceeded(f"it is longer than {SOURCE:,} characters")
    token = _BUDGET.set(_Budget())  # constants are computed here
    try:
        return environment.from_string(source)
    finally:
        _BUDGET.reset(token)


@cache
def _chat_environment() -> BoundedEnvironment:
    from transformers.utils import chat_template_utils

    theirs = chat_template_utils._compile_jinja_template("").environment
    ours = BoundedEnvironment(
        trim_blocks=theirs.trim_blocks,
        lstrip_blocks=theirs.lstrip_blocks,
        extensions=[type(extension) for extension in theirs.extensions.values()],
    )
    ours.globals |= theirs.globals
    ours.filters["tojson"] = theirs.filters["tojson"]
    ours.bound()
    return ours


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with everything counted that has a size."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=lambda value: value if value.__class__ is str else _charge(str(value)))
        self.concat = _concat  # type: ignore[method-assign]  # compiled templates look it up here
        self.bound()

    def bound(self) -> None:
        """Wrap filters, tests and globals."""
        for name in UNBOUNDED:
            self.filters.pop(name, None)
        self.globals.pop("lipsum", None)
        space: Any = self.globals["namespace"]
        # the only value that can be changed after its size was counted: never printed with what is in it
        self.globals["namespace"] = type("Namespace", (space,), {"__repr__": object.__repr__})
        self.filters = {name: _counted(name, function) for name, function in self.filters.items()}
        self.filters |= {"_charge": _charge, "_look": _look, "_concat": _concat, "_step": _step}
        tests: dict[str, Any] = self.tests
        self.tests |= {name: _counted(name, tests[name]) for name in (*EQUAL, *ORDER, "in", "lower", "upper")}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja's
        method = getattr(__obj, "__wrapped__", __obj)  # str.format comes wrapped
        name = getattr(method, "__name__", "")
        if name in MULTIPLYING:
            args = _check(name, (getattr(method, "__self__", ""), *args), kwargs)[1:]
        return _look(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, (str, bytes)):
            _check("%", (left, right), {})
        elif operator == "**" and not abs(right) <= 64:
            raise LimitExceeded("it raises a number to a power above 64")
        elif operator == "*" and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            _allow(_measure(left) * _measure(right))
        return _charge(self.binop_table[operator](left, right))


class _Counting(NodeTransformer):
    """Puts what the environment does not see through filters that do."""

    def _filter(self, name: str, node: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        step = nodes.ExprStmt(self._filter("_step", nodes.Const(None, lineno=node.lineno)), lineno=node.lineno)
        node.body.insert(0, step)
        return node

    visit_For = visit_Macro = visit_CallBlock = _body

    def _value(self, node: Any) -> Any:
        self.generic_visit(node)
        items = getattr(node, "items", [None])
        if getattr(node, "ctx", "load") != "load" or all(isinstance(item, nodes.Const) for item in items):
            return node  # a target of an assignment; or no larger than its source
        return self._filter("_charge", node)

    visit_List = visit_Tuple = visit_Dict = _value

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return self._filter("_concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return self._filter("_charge", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:
        self.generic_visit(node)
        short = isinstance(node.ops[0].expr, nodes.Const) and node.ops[0].op in ("eq", "ne")
        return node if short and len(node.ops) == 1 else self._filter("_look", node)


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # with Jinja's mark of functions that take the context
    def counted(*args: Any, **kwargs: Any) -> Any:
        if name in MULTIPLYING:
            args = _check(name, args, kwargs)
        return _look(function(*args, **kwargs))

    return counted


def _check(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Refuse a call whose result could be too large. Returns its arguments, with generators as lists."""
    args = tuple(list(item) if isinstance(item, LAZY) else item for item in args)
    values = [item for item in (*args, *kwargs.values()) if isinstance(item, (str, bytes, int, list, tuple, dict))]
    if name in FORMATS and values and WIDTH.search(str(values[0]).replace("{{", "").replace("}}", "")):
        raise LimitExceeded("it formats with a width of five or more digits, or with one that varies")
    if name == "replace":
        del values[1:2]  # what is replaced adds nothing
    product = 1
    for value in values:
        product *= max(_measure(value), 1)
    _allow(product)
    return args


def _allow(size: int) -> None:
    if size > SIZE:
        raise LimitExceeded(f"it makes more than {SIZE:,} characters or items")


def _measure(value: Any) -> int:
    """Return how often, or with how much, a value multiplies what it meets."""
    return abs(value) if isinstance(value, int) else _weigh(value)


def _weigh(value: Any) -> int:
    """Return the characters and items of a value, with everything in it, and spend them."""
    if isinstance(value, (str, bytes)):
        size = len(value)
    elif isinstance(value, dict):
        return _weigh(list(value)) + _weigh(list(value.values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        _BUDGET.get().spend(len(value))
        return len(value) + sum(map(_weigh, value))
    elif isinstance(value, int) and value.bit_length() > 512:
        raise LimitExceeded("it makes a number of more than 512 bits")
    else:
        size = 1
    _BUDGET.get().spend(size)
    return size


def _charge(value: Any) -> Any:
    if value.__class__ is str:
        _BUDGET.get().spend(len(value))
    else:
        _weigh(value)
    return value


def _look(value: Any) -> Any:
    """Charge for the result of something that may have taken long."""
    budget = _BUDGET.get()
    if value.__class__ is str:
        budget.until_look -= len(value)
    else:
        _weigh(value)
    budget.look()
    return value


def _concat(pieces: Any) -> str:
    texts = [piece if piece.__class__ is str else _charge(str(piece)) for piece in pieces]
    _BUDGET.get().spend(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _step(_: Context, value: object) -> object:  # with the context, so that it is not computed in advance
    _BUDGET.get().spend(0)
    return value
