"""What differs between versions of Typer, in one place."""

from typing import TYPE_CHECKING

__all__ = ["CommandLineError"]

if TYPE_CHECKING:
    from typer import TyperException as CommandLineError
else:
    try:
        from typer import TyperException as CommandLineError  # Typer with a Click of its own
    except ImportError:
        from click import ClickException as CommandLineError
