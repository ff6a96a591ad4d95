"""The command line: `sslticket ...` and every recipe; nothing else parses flags."""

from sslticket.cli.commands import main

__all__ = ["main"]
