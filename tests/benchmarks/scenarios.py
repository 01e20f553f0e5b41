"""All scenarios by name, in the order in which a full run takes them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import typer

from tests.benchmarks import cases, checking, contest, flood, freshness, http_read, impressions, live, rebalance, replay
from tests.benchmarks.bench import Bench


@dataclass(frozen=True, slots=True)
class Scenario:
    names: tuple[str, ...]
    what: str
    run: Callable[[Bench], None]


ALONE = {
    "sink": cases.sink,
    "workers": cases.several,
    "backlog": cases.backlog,
    "sizes": cases.sizes,
    "tenants": cases.tenants,
    "latest": cases.latest,
    "hot": cases.hot_user,
    "schema": checking.checked,
    "freshness": freshness.freshness,
    "rebalance": rebalance.rebalance,
    "replay": replay.replay,
    "flood": flood.flood,
    "http_read": http_read.http_read,
    "impressions": impressions.impressions,
    "live": live.live,
}
NAMES = (*contest.CONTESTANTS, *ALONE)


def chosen(names: str) -> list[Scenario]:
    """The scenarios of a comma-separated list; all for an empty one. Contestants compete together.

    Raises:
        typer.BadParameter: a name that is none.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()] or list(NAMES)
    if unknown := [name for name in asked if name not in NAMES]:
        raise typer.BadParameter(f"scenarios: expected names of {', '.join(NAMES)}, got {', '.join(unknown)}")
    contestants = [name for name in contest.CONTESTANTS if name in asked]
    found = []
    if contestants:
        what = "the same events into the same store, in turns"
        found.append(Scenario(tuple(contestants), what, partial(contest.compete, names=contestants)))
    for name, run in ALONE.items():
        if name in asked:
            found.append(Scenario((name,), (run.__doc__ or "").partition("\n")[0], run))
    return found
