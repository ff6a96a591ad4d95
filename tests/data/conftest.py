"""The one way in which bad input is refused."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from sslticket.errors import BadInput

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refused:
    """`with refused("this", "that"):` the block must raise BadInput, in one line that holds these words."""

    @contextmanager
    def expect(*words: str) -> Iterator[None]:
        with pytest.raises(BadInput) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert not [word for word in words if word not in message], message

    return expect
