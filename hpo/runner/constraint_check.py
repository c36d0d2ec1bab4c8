"""The constraints of a space, checked before a trial is trained."""

from hpo.constraints import Costs
from hpo.runner.session import Assignment, Session
from hpo.training.engine import Engine

MAX_REJECTED = 100
"""The study stops after so many draws in a row that break the space's constraints."""


class ConstraintCheck:
    """Measures what an untrained network costs, and rejects trials that break a constraint."""

    def __init__(self, session: Session, engine: Engine) -> None:
        self.session, self.engine = session, engine

    def allows(self, assignment: Assignment) -> bool:
        """Say whether a trial may be trained; one that may not is ended. Raises: TrialFault if it cannot be built."""
        study, trials, key = self.session.study, self.session.trials, assignment.trial_id
        if trials.has_costs(key):
            return True
        constraints, costs = study.space.constraints, Costs()
        names = [*constraints.limits, *([study.recipe.cost] if study.recipe.cost is not None else [])]
        for name in dict.fromkeys(names):  # a network that breaks a cheap limit need not be built to be timed
            costs |= self.engine.measure(assignment.config, [name])
            if constraints.broken(costs):
                break
        trials.note_costs(key, costs)
        broken = constraints.broken(costs)
        if broken and trials.reject(key, broken) >= MAX_REJECTED:
            self.session.link.stop_study(
                f"{MAX_REJECTED} draws in a row broke the constraints ({broken}); loosen them or narrow the space "
                "(hpo studies set-space)"
            )
        return not broken
