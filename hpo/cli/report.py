"""`hpo report`: a study as one page."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import Storage, StudyName, talk
from hpo.errors import HpoError


def report(
    study: StudyName,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("report.html"),
    storage: Storage = None,
) -> None:
    """Write a study as one web page that needs no network."""
    from hpo.cli.tables import next_commands
    from hpo.results.report import report as made
    from hpo.store import queries, studies
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    store = open_store(configured(storage))
    found = studies.load_study(store, study)
    with store.read() as connection:
        commands = next_commands(store.url, queries.study(connection, found.study_id))
    content = made(store, found, commands.strip())
    try:
        output.write_text(content, encoding="utf-8")
    except OSError as error:
        raise HpoError(f"{output}: cannot be written: {error.strerror}. Choose another -o.") from error
    talk().print(f"{output}: {len(content) / 1e6:.1f} MB, opens in any browser")
