"""Imported by each new interpreter in whose path this folder is: in a job of submitit, the worker is forked."""

import os

if "SUBMITIT_LOCAL_GLOBALID" in os.environ:  # the job itself, not what keeps it
    from hpo.runner.launchers import process
    from tests.helpers.fork_server import OF_SUBPROCESS

    vars(process)["subprocess"] = OF_SUBPROCESS
