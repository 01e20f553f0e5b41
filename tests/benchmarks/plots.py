"""PNG plots of a run."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.benchmarks.results import UNITS, Result, Run, medians

mpl.use("Agg")


def draw(run: Run, folder: Path) -> None:
    """One bar chart of CPU an event for each scenario, and the memory curves of a run in one plot."""
    found = medians(run.results)
    for scenario in dict.fromkeys(result.scenario for result in found):
        bars = {r.name: r.figures["cpu_us"] for r in found if r.scenario == scenario and "cpu_us" in r.figures}
        if bars:
            _bars(scenario, bars, folder / f"cpu-{scenario}.png")
    if curves := [result for result in found if result.curve]:
        _curves(curves, folder / "memory.png")


def _bars(title: str, bars: dict[str, float], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(bars) + 1.2))
    drawn = axes.barh(list(bars), list(bars.values()))
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=UNITS["cpu_us"])
    axes.margins(x=0.15)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curves(results: list[Result], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.5))
    for result in results:
        axes.plot(
            [point.seconds for point in result.curve], [point.mb for point in result.curve],
            label=f"{result.scenario}: {result.name}",
        )  # fmt: skip
    axes.set(title="resident memory of a worker", xlabel="seconds since its start", ylabel="MB", ylim=(0, None))
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
