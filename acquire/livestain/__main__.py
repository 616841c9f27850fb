"""`python -m livestain` is the command `livestain`."""

from livestain.cli.main import main

main()
