"""`hpo doctor`: what a helpful colleague checks on this machine."""

from typing import Annotated

import typer

from hpo.cli.options import AsJson, Device, out, print_json, talk

app = typer.Typer(help="Checks and proofs on this machine.", no_args_is_help=True)


@app.callback()
def _doctor() -> None:
    pass


@app.command()
def resume(
    space: Annotated[str, typer.Option(help="The space whose first trial is killed and resumed.")] = "ann_digits",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Kill a training (kill -9), resume it, and compare it with the same training left alone, bit for bit."""
    import dataclasses

    from hpo import space as spaces
    from hpo.cli.data import fetch_with_progress
    from hpo.doctor.resume import prove_resume
    from hpo.training.devices import choose_device

    where = choose_device(device)
    found = spaces.load(space)
    fetch_with_progress(found.data)
    console = talk()
    proof = prove_resume(found, seed, str(where), lambda line: console.print(f"{line} ...", style="dim"))
    if as_json:
        print_json(dataclasses.asdict(proof))
    else:
        out().print(f"{proof.summary}, on {where}")
        at = f"killed after epoch {proof.killed_after} of {proof.epochs} and resumed"
        if not proof.differing:
            out().print(f"ok: {at}, it ended bit for bit as without: the curve and {proof.tensors} tensors.")
        elif where.type == "cpu":
            out().print(f"FAILED: {at}, it ended with other values of: {', '.join(proof.differing)}.")
        else:
            out().print(f"note: {at}, it ended with other values of: {', '.join(proof.differing)}.")
            out().print("On a GPU this is no fault: its sums depend on the order in which they are made.")
    if proof.differing and where.type == "cpu":
        raise typer.Exit(1)
