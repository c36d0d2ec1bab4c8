"""What keeping a study costs: the share of a worker's time that is not training, in a real study.

    python -m benchmarks.overhead [--trials 30] [--space ann_fashion] [--storage URL] [--slots 64]

One worker, one CPU thread. Training is the time spent within the engine; everything else - claim, draw,
report, prune, checkpoint, finish, the waits for the store - is overhead. Start-up is not counted: it is paid
once, not per trial.

With --slots, as many trials at once by an engine that only waits, as for a GPU: each advances every 0.2 seconds, and
none is pruned, though it is asked each time. So they all end together: the worst case for drawing their successors.
"""

import argparse
import json
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from hpo import data, recipe, space
from hpo.artifacts import FolderFiles
from hpo.config import TrialConfig
from hpo.recipe import Budget, Pruner
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.runner.trial_plots import TrialPlotter, Validation
from hpo.runner.worker import make_engine
from hpo.store import studies
from hpo.store.database.connect import open_store
from hpo.store.database.url import parse
from hpo.strategy.study_search import StudySearch
from hpo.training.simulated import SimulatedEngine


def timed(search: StudySearch) -> list[float]:
    """Have a search note the seconds of each draw; return the list it notes them in."""
    seconds: list[float] = []
    plain = search.draw

    def draw(trial_id: int, number: int) -> TrialConfig:
        start = time.perf_counter()
        config = plain(trial_id, number)
        seconds.append(time.perf_counter() - start)
        return config

    search.draw = draw  # type: ignore[method-assign]
    return seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--space", default="ann_fashion")
    arguments.add_argument("--slots", type=int, help="trials at once, by an engine that only waits")
    arguments.add_argument("--storage", help="[default: a new SQLite file]")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    found = space.load_space(options.space)
    info = data.info(found.data)
    data.fetch(info)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(options.storage or f"sqlite:///{folder}/studies.db"), create=True)
        name = f"overhead-{int(time.time())}"
        plan = recipe.load_recipe("default").model_copy(update={"budget": Budget(trials=options.trials)})
        if options.slots:
            plan = plan.model_copy(update={"pruner": Pruner(name="threshold", threshold=0.0)})
        studies.create(store, name, options.space, found, plan, data.fingerprint(info, found.split))
        study = studies.load_study(store, name)
        engine = SimulatedEngine(options.slots, 0.2, is_async=True) if options.slots else make_engine("solo", "cpu")
        with Session(store, study, {"device": "cpu"}) as session:
            rows = data.load_parts(info, found.split).validation
            pictures = TrialPlotter(Path(folder) / "p", study.uid, lambda _: Validation(rows.x, rows.y, info.classes))
            with pictures:
                keeper = CheckpointRetention(FolderFiles(Path(folder)), study.recipe.checkpoints)
                loop = Loop(session, engine, keeper, plotter=None if options.slots else pictures)
                drawing = timed(session.search)
                start = time.perf_counter()
                loop.run()
                wall = time.perf_counter() - start
    drawn = sum(drawing)
    share = 1 - loop.clock.seconds / wall
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "space": options.space,
        "store": store.url.get_backend_name(),
        "trials": options.trials,
        "slots": options.slots or 1,
        "wall_seconds": round(wall, 2),
        "training_seconds": round(loop.clock.seconds, 2),
        "drawing_seconds": round(drawn, 2),
        "overhead_share": round(share, 4),
    }
    print(json.dumps(report, indent=2))
    promised = 0.05 if options.slots else 0.03
    missed = "" if share < promised else "  MISSED"
    print(f"overhead: {100 * share:.2f} % of the time (promised < {100 * promised:.0f} %){missed}")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
