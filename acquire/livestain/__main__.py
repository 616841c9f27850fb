"""`python -m livestain` is the command `livestain`."""

from livestain._cli import main

main()
