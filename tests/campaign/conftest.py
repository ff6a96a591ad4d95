"""What every test of campaigns begins with."""

import pytest

from sslticket import registry


@pytest.fixture(autouse=True)
def no_registered_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have registered parts of users, with which workers need the sweep's own file."""
    monkeypatch.setattr(registry, "_registered", {})
