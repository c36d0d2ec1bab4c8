"""The command line: parse, call one function, print. Data goes to stdout, talk to stderr.

Every error that a user can cause ends here, as one line and an exit code: 2 for the command itself, 1 for the
rest. Commands import what they need when they run, so that `hpo --help` answers at once.
"""

import os
import sys
import traceback

import typer

from hpo.cli.app import app
from hpo.errors import HpoError

CRASH = 70
"""The exit code of a fault of ours, as in sysexits.h; a supervisor then tries another worker."""

# Typer carries Click within itself; this is its base class of everything wrong with a command line.
_BadCommand: type[Exception] = next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException")


def main() -> None:
    """Run `hpo`."""
    try:
        result = app(standalone_mode=False, prog_name="hpo")
        sys.exit(result if isinstance(result, int) else 0)
    except HpoError as error:
        _fail(str(error), error.exit_code)
    except _BadCommand as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hpo"
        text = error.format_message().rstrip(".") if hasattr(error, "format_message") else str(error)
        _fail(f"{text}. See `{command} --help`.", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:
        traceback.print_exc()
        _fail("this is a fault of hpo's, not of yours. Please report the lines above.", CRASH)


def _fail(text: str, code: int) -> None:
    print(f"hpo: {text}", file=sys.stderr)
    sys.exit(code)
