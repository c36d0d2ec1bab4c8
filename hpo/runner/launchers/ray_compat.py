"""The private names of Ray that hpo uses; `tests/test_launchers.py` fails where Ray has changed them."""

import ray._private.state


def draining_nodes() -> set[str]:
    """Return the ids of the nodes that Ray has been told will be taken away. For processes of a cluster."""
    return set(ray._private.state.state.get_draining_nodes())
