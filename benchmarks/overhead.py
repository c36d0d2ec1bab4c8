"""What keeping a study costs: the share of a worker's time that is not training, in a real study.

    python benchmarks/overhead.py [--trials 30] [--space ann_fashion] [--storage URL]

One worker, one CPU thread. Training is the time spent within the engine; everything else - claim, draw,
report, prune, checkpoint, finish, the waits for the store - is overhead. Start-up is not counted: it is paid
once, not per trial.
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
from hpo.recipe import Budget
from hpo.runner.artifacts import Folder
from hpo.runner.illustrating import Illustrator, Validation
from hpo.runner.keeping import Keeper
from hpo.runner.loop import Loop
from hpo.runner.worker import make_engine
from hpo.store import study as studies
from hpo.store.connect import open_store
from hpo.store.session import Session
from hpo.store.url import parse


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--space", default="ann_fashion")
    arguments.add_argument("--storage", help="[default: a new SQLite file]")
    arguments.add_argument("-o", "--output", type=Path)
    options = arguments.parse_args()
    found = space.load(options.space)
    info = data.info(found.data)
    data.fetch(info)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(parse(options.storage or f"sqlite:///{folder}/studies.db"), create=True)
        name = f"overhead-{int(time.time())}"
        plan = recipe.load("default").model_copy(update={"budget": Budget(trials=options.trials)})
        studies.create(store, name, options.space, found, plan, data.fingerprint(info, found.split))
        study = studies.load(store, name)
        engine = make_engine("solo", "cpu")
        with Session(store, study, {"device": "cpu"}) as session:
            rows = data.load_parts(info, found.split).validation
            pictures = Illustrator(Path(folder) / "p", study.uid, lambda: Validation(rows.x, rows.y, info.classes))
            with pictures:
                keeper = Keeper(Folder(Path(folder)), study.recipe.checkpoints)
                loop = Loop(session, engine, keeper, illustrator=pictures)
                start = time.perf_counter()
                loop.run()
                wall = time.perf_counter() - start
    share = 1 - loop.training_seconds / wall
    report = {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "space": options.space,
        "store": store.url.get_backend_name(),
        "trials": options.trials,
        "wall_seconds": round(wall, 2),
        "training_seconds": round(loop.training_seconds, 2),
        "overhead_share": round(share, 4),
    }
    print(json.dumps(report, indent=2))
    print(f"overhead: {100 * share:.2f} % of the time (promised < 3 %){'' if share < 0.03 else '  MISSED'}")
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
