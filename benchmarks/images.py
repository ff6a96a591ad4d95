"""The real images that some benchmarks need, unpacked once a run."""

import os
import tarfile
import tempfile
from functools import cached_property
from pathlib import Path

from compare import NotHere


class Images:
    """The archives in the folder that SSLTICKET_TEST_DATA names, unpacked when first asked for."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sslticket-bench-")

    @cached_property
    def photographs(self) -> Path:
        """1,000 full-size ImageNet photographs, train/<wnid>/*.JPEG."""
        return self._unpacked("imagenet-1000.tar", "imagenet")

    @cached_property
    def cifar10(self) -> Path:
        """CIFAR-10, train/<class>/*.jpg and test/<class>/*.jpg."""
        return self._unpacked("cifar10-jpeg.tar.xz", "cifar10")

    def close(self) -> None:
        """Delete what was unpacked."""
        self._folder.cleanup()

    @property
    def scratch(self) -> Path:
        """A folder that is deleted at the end."""
        return Path(self._folder.name)

    def _unpacked(self, archive: str, name: str) -> Path:
        home = os.environ.get("SSLTICKET_TEST_DATA")
        if not home:
            raise NotHere("set SSLTICKET_TEST_DATA")
        if not (Path(home) / archive).is_file():
            raise NotHere(f"no {archive} in SSLTICKET_TEST_DATA")
        with tarfile.open(Path(home) / archive) as file:
            if hasattr(tarfile, "data_filter"):  # not in Python 3.11.2, which Debian 12 has
                file.extraction_filter = tarfile.data_filter
            file.extractall(self.scratch / name)
        return self.scratch / name
