"""`python -m smearwatch`, as the supervisor starts its children."""

from smearwatch.cli import main

main()
