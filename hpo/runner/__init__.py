"""Running studies: the worker's loop, and the supervisor that keeps workers at it."""
