"""The command line: parse, call the service, print. Data goes to stdout, everything else to stderr.

Every error that a user can cause ends here, as one line and an exit code: 2 for the command itself, 1 for the
rest. A command's module is imported when the command is named, the service's modules when they are used.
"""

import sys
import traceback
from typing import NoReturn

import typer

from hpo.cli import streams
from hpo.cli.app import app
from hpo.errors import HpoError
from hpo.text import printable

CRASH = 70
"""The exit code of a fault of ours, as in sysexits.h; a supervisor then tries another worker."""


def main() -> None:
    """Run `hpo`."""
    if sys.stderr is not None:
        sys.stderr = streams.PatientStream(sys.stderr)
    try:
        result = app(standalone_mode=False, prog_name="hpo")
        streams.flush_output()
        sys.exit(result if isinstance(result, int) else 0)
    except HpoError as error:
        _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        _fail_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped.", 130)
    except BrokenPipeError:
        streams.discard(sys.stdout)
        sys.exit(0)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in streams.FULL and sys.stdout is not None:
            streams.discard(sys.stdout)
            _fail(f"the output cannot be written: {error.strerror}. Make room, or write it elsewhere.", 1)
        explained = _explained(error)
        if explained is not None:
            _fail(str(explained), explained.exit_code)
        traceback.print_exc()
        _fail("this is a fault of hpo's, not of yours. Please report the lines above.", CRASH)


def _explained(error: Exception) -> HpoError | None:
    """Return what is the matter with a store that the command has used, if the error comes from that."""
    if "hpo.store.database.connect" not in sys.modules:
        return None
    from hpo import service

    return service.stores.explain(error)


def _fail_usage(error: typer.TyperException) -> NoReturn:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hpo"
    text = error.format_message().rstrip(".")
    if not text:  # a group without a command: its help has been printed
        sys.exit(2)
    _fail(f"{text}{'' if text.endswith('?') else '.'} See `{command} --help`.", 2)


def _fail(text: str, code: int) -> NoReturn:
    print(printable(f"hpo: {text}"), file=sys.stderr)
    sys.exit(code)
