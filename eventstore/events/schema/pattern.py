r"""Regular expressions that mean the same in ECMA 262, Rust and Python, and that Python matches in linear time.

Taken are chains of character sets from the start of the text, `^[A-Z]{3}-\d+$`, in which every repeat ends where the next
set begins: there is nothing to backtrack into, so no text can make the match slow. All others have no translation here.
"""

import re
from dataclasses import dataclass
from typing import Final

DIGITS: Final = frozenset("0123456789")
WORD: Final = DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
LINE_ENDS: Final = frozenset("\n\r\u2028\u2029")
_ESCAPED: Final = r"\\[-./+*?()\[\]{}^$|\\]"
_MEMBER: Final = re.compile(
    rf"[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|\\[dw]|{_ESCAPED}|[A-Za-z0-9 _.,:;@#%!?*+/=$(){{}}|'\"]"
)
_ITEM: Final = re.compile(
    rf"(?:\[(?P<not>\^?)(?P<members>-?(?:{_MEMBER.pattern})*-?)\]"
    rf"|(?P<atom>\\[dw]|{_ESCAPED}|[A-Za-z0-9 _,:;@#%!/=<>&~'\".-]))"
    r"(?P<repeat>[?*+]|\{(?P<least>[0-9]{1,3})(?P<range>,(?P<most>[0-9]{0,3}))?\})?"
)


@dataclass(frozen=True, slots=True)
class _Step:
    """One character set and how often it stands in a row."""

    chars: frozenset[str]
    negated: bool
    repeat: str
    optional: bool
    varies: bool

    def source(self) -> str:
        members = "".join(map(re.escape, sorted(self.chars)))
        return f"[{'^' if self.negated else ''}{members}]{self.repeat}"

    def is_apart_from(self, other: "_Step") -> bool:
        if self.negated or other.negated:
            return self.negated != other.negated and (
                other.chars <= self.chars if self.negated else self.chars <= other.chars
            )
        return self.chars.isdisjoint(other.chars)


def translated(pattern: str) -> str | None:
    """The same expression for Python's `re`, or None if it is not of the kind that is taken."""
    if not pattern.startswith("^"):
        return None
    at, steps = 1, list[_Step]()
    while at < len(pattern) and pattern[at:] != "$":
        if (item := _ITEM.match(pattern, at)) is None or (step := _step(item)) is None:
            return None
        steps.append(step)
        at = item.end()
    if not all(_ends_by_itself(steps[number:]) for number in range(len(steps))):
        return None
    return rf"\A{''.join(step.source() for step in steps)}" + (r"\Z" if at < len(pattern) else "")


def _step(item: re.Match[str]) -> _Step | None:
    negated = bool(item["not"]) or item["atom"] == "."
    members = _MEMBER.findall(item["members"].strip("-")) if item["atom"] is None else [item["atom"]]
    if negated and any(member in {r"\d", r"\w"} for member in members):
        return None  # what is not a digit is a matter of dialect
    chars = LINE_ENDS if item["atom"] == "." else frozenset[str]().union(*map(_chars, members))
    if item["atom"] is None and "-" in (item["members"][:1], item["members"][-1:]):
        chars |= {"-"}
    if not chars:
        return None
    repeat = item["repeat"] or ""
    optional = repeat in {"?", "*"} or (item["least"] is not None and int(item["least"]) == 0)
    varies = repeat in {"?", "*", "+"} or item["range"] is not None
    return _Step(chars, negated, repeat, optional, varies)


def _chars(member: str) -> frozenset[str]:
    if member in {r"\d", r"\w"}:
        return DIGITS if member == r"\d" else WORD
    if len(member) == 3:  # noqa: PLR2004 — a range such as a-z
        return frozenset(map(chr, range(ord(member[0]), ord(member[2]) + 1)))
    return frozenset(member[-1])


def _ends_by_itself(steps: list[_Step]) -> bool:
    """Whether what may follow the first of these steps tells where its repeat ends."""
    first, *rest = steps
    for step in rest if first.varies else ():
        if not first.is_apart_from(step):
            return False
        if not step.optional:
            return True
    return True
