"""`python -m hpo` is the console script `hpo`."""

from hpo.cli import main

main()
