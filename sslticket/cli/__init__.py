"""The command line: `sslticket ...` and every recipe; nothing else parses flags."""

from sslticket.processes.signals import quiet_exit_during_imports


def main() -> None:
    """The `sslticket` command."""
    with quiet_exit_during_imports():
        from sslticket.cli import commands
    commands.main()
