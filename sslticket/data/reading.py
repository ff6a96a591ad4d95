"""The bytes of a manifest's images, one by one, as they lie on the disk."""

from collections.abc import Callable

from sslticket.data.archives import Archives
from sslticket.data.manifest import Manifest


def reader(manifest: Manifest) -> Callable[[int], bytes]:
    """Reads the file of a row's image; nothing, where it cannot be read."""
    if manifest.archives:
        archives, places = Archives(manifest.archives), manifest.places
        return lambda row: archives.read(*places[row].tolist()).tobytes()

    def read(row: int) -> bytes:
        try:
            return manifest.path(row).read_bytes()
        except OSError:
            return b""

    return read
