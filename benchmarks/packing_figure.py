"""The picture of what packing gains, drawn from a report of `benchmarks.packing`."""

from pathlib import Path
from typing import Any

FIGURE = Path(__file__).parent.parent / "docs" / "pictures" / "packing.svg"


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw trials per hour of each engine, relative to the solo engine's."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    speed = report["speed"]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(speed) + 1.2))
    for number, found in enumerate(speed.values()):
        for offset, kind, color in ((-0.18, "packed", "#4c78a8"), (0.18, "auto", "#f58518")):
            ratio = found[f"{kind}/solo"]
            axes.barh(number + offset, ratio, 0.34, color=color, label=kind if number == 0 else None)
            axes.text(ratio, number + offset, f" {ratio:.1f}x", va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(speed)), list(speed), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"trials per hour, in those of the solo engine ({report['device']}, one process)")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
