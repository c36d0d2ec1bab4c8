"""Where the workers of a run are to be: this machine, a Ray cluster, or Slurm."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from hpo.errors import UsageError
from hpo.runner.launchers.plan import LOCAL, Plan, Wanted, plan_workers
from hpo.store.database.url import configured

__all__ = ["Plan", "Wanted", "parse_options", "plan_for", "planned"]


def plan_for(wanted: Wanted, *, storage: str | None = None, say: Callable[[str], None] = lambda text: None) -> Plan:
    """Return how the workers that a user asks for can be started; nothing is started or created.

    All that can be checked before is checked: the engine's package, its address, its resources, the versions there, and
    that store and artifacts serve several machines. `say` takes a line for the user. Raises: UsageError.
    """
    return plan_workers(wanted, configured(storage), say=say)


@contextlib.contextmanager
def planned(wanted: Wanted, *, storage: str | None = None) -> Iterator[Plan | None]:
    """Plan workers as `plan_for` does, and release what the plan holds in the end; None for workers=0, this process.

    Raises: UsageError.
    """
    if wanted.workers is not None and wanted.workers < 0:
        raise UsageError(f"workers: must be at least 0, got {wanted.workers}. Use 0 to train in this process.")
    if wanted.workers == 0:
        if wanted.on != LOCAL:
            raise UsageError(f"workers: 0 trains in this process, got on={wanted.on}. Ask for at least 1 there.")
        yield None
        return
    plan = plan_for(wanted, storage=storage)
    with contextlib.closing(plan.launcher):
        yield plan


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """Return the options of a place, each written KEY=VALUE. Raises: UsageError."""
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f'on_option: must be KEY=VALUE, got "{text}".')
        options[name.strip()] = value.strip()
    return options
