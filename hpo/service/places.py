"""Where the workers of a run are to be: this machine, a Ray cluster, or Slurm."""

from collections.abc import Callable, Iterable

from hpo.errors import UsageError
from hpo.runner.launchers.plan import Plan, Wanted, plan_workers
from hpo.store.database.url import configured

__all__ = ["Plan", "Wanted", "parse_options", "plan_for"]


def plan_for(wanted: Wanted, *, storage: str | None = None, say: Callable[[str], None] = lambda text: None) -> Plan:
    """Return how the workers that a user asks for can be started; nothing is started or created.

    All that can be checked before is checked: the engine's package, its address, its resources, the versions there, and
    that store and artifacts serve several machines. `say` takes a line for the user. Raises: UsageError.
    """
    return plan_workers(wanted, configured(storage), say=say)


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """Return the options of a place, each written KEY=VALUE. Raises: UsageError."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f'on_option: must be KEY=VALUE, got "{text}".')
        options[name.strip()] = value.strip()
    return options
