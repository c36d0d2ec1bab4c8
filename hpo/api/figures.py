"""The figures of `hpo.Study`, as Plotly figures."""

from typing import TYPE_CHECKING

from hpo.api.reader import StudyReader

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from hpo.service.report import FigureName


class StudyFigures(StudyReader):
    """A study that draws figures of itself."""

    def plot_history(self) -> "go.Figure":
        """Return the best value over finished trials and over time, the baseline beside it, as a Plotly figure."""
        return self._figure("history")

    def plot_importances(self) -> "go.Figure":
        """Return how much each parameter matters (PED-ANOVA), as a Plotly figure.

        Raises: StudyError if there are too few complete trials.
        """
        return self._figure("importances")

    def plot_parallel(self) -> "go.Figure":
        """Return trials as lines through the parameters that all of them have, as a Plotly figure.

        Raises: StudyError if there are too few complete trials, or fewer than two such parameters.
        """
        return self._figure("parallel")

    def plot_curves(self) -> "go.Figure":
        """Return the value by epoch of all trials, as a Plotly figure: pruned ones end early, the best stands out."""
        return self._figure("curves")

    def plot_pareto(self) -> "go.Figure":
        """Return the metric against the cost, with the Pareto front, as a Plotly figure.

        Raises: StudyError for a study with one objective.
        """
        return self._figure("pareto")

    def _figure(self, name: "FigureName") -> "go.Figure":
        from hpo.service import report

        return report.study_figure(self._store, self._record, name)
