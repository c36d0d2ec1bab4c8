"""A confirmation as a table."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hpo import service

if TYPE_CHECKING:
    from hpo.service.confirm import Confirmation


def confirmation_table(result: "Confirmation") -> Table:
    """Return what the fresh trainings have shown, the winner first."""
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for column in ("trial", "searched", "trained again", "luck", "over the baseline", "configuration"):
        left = column == "configuration"
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    for candidate in result.candidates:
        baseline = candidate.baseline
        name = Text.assemble(("baseline:", "bold"), f" {baseline}") if baseline else candidate.config.summary()
        gap = candidate.gap
        table.add_row(
            str(candidate.number),
            f"{candidate.searched:.4f}",
            f"{candidate.mean:.4f} ± {candidate.interval.half:.4f}",
            f"{candidate.luck:+.4f}",
            "" if gap is None else f"{(gap.low + gap.high) / 2:+.4f} ± {gap.half:.4f}",
            name,
        )
    missing = f"; {result.missing} trainings are missing" if result.missing else ""
    counts = sorted({len(c.values) for c in result.candidates})
    seeds = " to ".join(str(count) for count in sorted({counts[0], counts[-1]}))
    on = "seeds, each on other validation rows" if result.fresh_cuts else "seeds on the study's validation rows"
    measure = service.confirm.metric_label(result.winner.config.metric)
    table.caption = f"{measure}, mean of {seeds} {on}, {100 * service.confirm.LEVEL:.0f} % intervals{missing}"
    return table


def promise_text(result: "Confirmation") -> str:
    """Return where the score of one more training of the winner should land; empty where that is not known."""
    promise = result.winner.promise
    if promise is None:
        return ""
    rows = "the test rows" if result.test_like_training else "rows like those of training"
    caution = "" if result.test_like_training else "; the test rows are others, and may be harder or easier"
    return f"One more training should reach {promise.low:.4f} to {promise.high:.4f} on {rows}{caution}."
