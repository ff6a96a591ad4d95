"""The command line: `sslticket ...` and every recipe; nothing else parses flags."""

from sslticket.processes.stopping import early


def main() -> None:
    """The `sslticket` command."""
    with early():
        from sslticket.cli import commands
    commands.main()
