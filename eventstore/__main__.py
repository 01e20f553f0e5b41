"""`python -m eventstore`: the same as the `eventstore` command."""

from eventstore.cli.app import main

main()
