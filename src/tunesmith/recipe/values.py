"""What settings are made of: the base of all sections, kinds of numbers, and what YAML misreads."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

Tree: TypeAlias = dict[str, Any]
"""Nested settings, as YAML has them: checked by pydantic."""


def no_as_text(value: Any) -> Any:
    """YAML reads a bare `no` as false; where a setting has the word `no`, false means it."""
    return "no" if value is False else value


def weights(value: Any) -> Any:
    """A bare `no` means none; labels that YAML reads as numbers are names all the same."""
    if isinstance(value, dict):
        return {labelled(key): _number(weight) for key, weight in value.items()}
    return "none" if value is False or value is None else value


def labels(value: Any) -> Any:
    """A list of labels."""
    return [labelled(item) for item in value] if isinstance(value, (list, tuple)) else value


def labelled(value: Any) -> Any:
    """A label; YAML reads some as numbers."""
    if isinstance(value, bool):
        raise ValueError(f"YAML reads a bare yes, no, on or off as {value}: put labels like these in quotes")
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value) if isinstance(value, int) else value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"a number is meant, not {value}")
    return value


def label_keys(value: Any) -> Any:
    """A mapping by label."""
    return {labelled(key): text for key, text in value.items()} if isinstance(value, dict) else value


def no_as_none(value: Any) -> Any:
    """A bare `no`, or nothing, means none."""
    return "none" if value is False or value is None else value


def as_list(value: Any) -> Any:
    """Return a single name as a list of one; `none`, a bare `no` and nothing as the empty list."""
    if isinstance(value, str):
        return () if value == "none" else (value,)
    return () if value is None or value is False else value


def numbers(value: Any) -> Any:
    """Return `1,2,3` from a command line, or a single number, as a sequence."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(","))
    if isinstance(value, (list, tuple)):
        return tuple(_number(item) for item in value)
    return (_number(value),) if isinstance(value, int) else value


def _no_address(value: str) -> str:
    if "://" in value:  # it may hold a key, and a recipe is written into the run
        raise ValueError("not an address: of a hub model give ORG/NAME")
    return value


def _bounded(value: int) -> int:
    if value >= 2**31:
        raise ValueError("input should be less than 2 ** 31")
    return value


BOUNDED = AfterValidator(_bounded)
"""Whole numbers that libraries in C take too."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=0), BOUNDED] | Fraction
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1), BOUNDED]
ModelName = Annotated[str, AfterValidator(_no_address)]
"""A hub id, a path or a `pypi:` asset."""
Plugin = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""Something of the user's own, as `module:name`."""


class Section(BaseModel):
    """Settings of one concern: unknown keys are errors, values cannot be changed after checking."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _yes_is_no_number(cls, written: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse a bare yes or no where a number is meant, which would be taken as 1 or 0."""
        section = handler(written)
        for name, value in written.items() if isinstance(written, dict) else ():
            if isinstance(value, bool) and type(getattr(section, name)) in (int, float):
                raise ValueError(f"{name} is a number, not {value}")
        return section
