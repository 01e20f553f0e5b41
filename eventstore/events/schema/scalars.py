"""Strings, numbers and listed values of JSON Schema as msgspec types. Where the two disagree, the type is the narrower one."""

from collections.abc import Callable, Mapping
from math import ceil, floor
from typing import Annotated, Any, Final, Literal

import msgspec

from eventstore.events.schema.pattern import translated

Place = tuple[str, ...]
"""Where in a document, for people."""

EXACT: Final = 2**53 - 1
"""Up to here integers and doubles are the same numbers, so it does not matter which of them a library compares."""
BOUNDS: Final = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
LEAST: Final[Mapping[str, Callable[[float], int]]] = {
    "minimum": ceil,
    "exclusiveMinimum": lambda bound: floor(bound) + 1,
}
MOST: Final[Mapping[str, Callable[[float], int]]] = {
    "maximum": floor,
    "exclusiveMaximum": lambda bound: ceil(bound) - 1,
}
"""The last integer that a bound allows."""
KINDS_OF: Final = {
    str: frozenset({"string"}),
    int: frozenset({"integer", "number"}),
    type(None): frozenset({"null"}),
}
"""Types of the values that a list of values may have: `true` and 1.0 are equal to others in one language and not in the next."""


class UntypedError(Exception):
    """No type of ours can stand for the document: where and why."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"{'.'.join(place) or 'the document'}: {what}")


def of_values(values: list[Any], kinds: list[str], place: Place) -> Any:
    """The type of these values, as far as they are of these kinds; of any kind if there are none."""
    for value in values:
        if type(value) not in KINDS_OF:
            raise UntypedError(place, f"the value {str(value)[:40]}")
    taken = tuple(value for value in values if not kinds or not KINDS_OF[type(value)].isdisjoint(kinds))
    if not taken:
        raise UntypedError(place, "no value is left")
    return Literal[taken]


def of_string(part: Mapping[str, Any], place: Place) -> Any:
    pattern = part.get("pattern")
    if pattern is not None and (pattern := translated(pattern)) is None:
        raise UntypedError(place, f"the pattern {part['pattern']}")
    return ruled(str, min_length=part.get("minLength"), max_length=part.get("maxLength"), pattern=pattern)


def of_integer(part: Mapping[str, Any], place: Place) -> Any:
    bounds = _bounds(part, place)
    least = [allowed(bounds[key]) for key, allowed in LEAST.items() if key in bounds]
    most = [allowed(bounds[key]) for key, allowed in MOST.items() if key in bounds]
    step = bounds.get("multipleOf")
    if step is not None:
        if step != int(step):
            raise UntypedError(place, f"multiples of {step}")
        least.append(-EXACT)  # larger ones are divided as doubles
        most.append(EXACT)
    ge, le, of = max(least, default=None), min(most, default=None), int(step or 1)
    # 3.0 is an integer too, and what data frames send; a refusal by the type would cost three times a check
    return ruled(int, ge=ge, le=le, multiple_of=of if of > 1 else None) | ruled(float, ge=ge, le=le, multiple_of=of)


def of_number(part: Mapping[str, Any], place: Place) -> Any:
    bounds = {key: float(bound) for key, bound in _bounds(part, place).items()}
    if "multipleOf" in bounds:
        raise UntypedError(place, "multiples of a number")
    if LEAST.keys() <= bounds.keys() or MOST.keys() <= bounds.keys():
        raise UntypedError(place, "two bounds on one side")
    return ruled(
        float,
        ge=bounds.get("minimum"),
        gt=bounds.get("exclusiveMinimum"),
        le=bounds.get("maximum"),
        lt=bounds.get("exclusiveMaximum"),
    )


def _bounds(part: Mapping[str, Any], place: Place) -> dict[str, float]:
    bounds: dict[str, float] = {key: part[key] for key in BOUNDS if key in part}
    for key, bound in bounds.items():
        if abs(bound) > EXACT:
            raise UntypedError(place, f"{key} beyond 2^53")
    return bounds


def ruled(of: Any, **rules: Any) -> Any:
    """The type with those of the rules that are given."""
    given = {rule: value for rule, value in rules.items() if value is not None}
    return Annotated[of, msgspec.Meta(**given)] if given else of
