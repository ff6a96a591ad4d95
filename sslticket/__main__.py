"""`python -m sslticket`, which launchers for several processes need."""

from sslticket.cli import main

main()
