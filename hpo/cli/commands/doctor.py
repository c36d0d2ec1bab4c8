"""`hpo doctor`: what a helpful colleague checks on this machine."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from hpo import service
from hpo.cli.console import err, out, print_json
from hpo.cli.options import AsJson, Device, Storage, complete_space
from hpo.cli.render.doctor import finding_line, proof_lines
from hpo.cli.render.progress import download_bar

if TYPE_CHECKING:
    from hpo.service.doctor import Finding

app = typer.Typer(
    help="Check machine and setup; `store` finds and mends damage, `resume` proves that training resumes.",
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def doctor(
    context: typer.Context,
    *,
    space: Annotated[
        str | None,
        typer.Option(
            help="Also check this space: its data, and whether its networks run and learn.",
            autocompletion=complete_space,
        ),
    ] = None,
    device: Device = "auto",
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, the store, data and disk; with --space, whether its networks run and learn."""
    if context.invoked_subcommand is not None:
        return
    _print(service.doctor.examine(storage, space=space, device=device), as_json=as_json)


def _print(findings: "Iterable[Finding]", *, as_json: bool) -> None:
    """Print findings as they come, or all as JSON. Raises: Exit(1) if one is a failure."""
    shown, console = [], out()
    for finding in findings:
        shown.append(finding)
        if not as_json:
            console.print(finding_line(finding))
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in shown])
    if any(finding.status == "failure" for finding in shown):
        raise typer.Exit(1)


@app.command()
def store(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended, after a copy.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Find damage in a store and its files: every value, trials without workers, lost and foreign files."""
    _print(service.doctor.examine_store(storage, repair=repair), as_json=as_json)


@app.command()
def resume(
    *,
    space: Annotated[str, typer.Option(help="The space whose first trial is killed and resumed.")] = "ann_digits",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Kill a training (kill -9), resume it, and compare it bit for bit with an uninterrupted one."""
    console = err()
    with download_bar(console) as on_download:
        proven = service.doctor.prove_resume(
            space,
            seed=seed,
            device=device,
            on_step=lambda line: console.print(f"{line} ...", style="dim"),
            on_download=on_download,
        )
    if as_json:
        print_json(dataclasses.asdict(proven.proof))
    else:
        for line in proof_lines(proven):
            out().print(line)
    if not proven.holds:
        raise typer.Exit(1)
