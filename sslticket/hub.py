"""Where a file lies: a ticket at a path, in an exported folder or on the Hugging Face Hub, and any file on the Hub."""

import filecmp
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from sslticket.errors import BadInput
from sslticket.storage.files import atomic_write, file_lock

TICKET_FILE = "ticket.safetensors"
"""The ticket's name in an exported folder."""

# A path loses one of the two slashes. A revision has slashes only as refs/pr/1 or refs/convert/x.
_HUB_NAME = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@(refs/\w+/[\w.-]+|[^/@]+))?(?:/(.+?))?/?")


class HubName(NamedTuple):
    """A file on the Hub: `hf://user/name[@revision][/path]`.

    Attributes:
        repo: "user/name".
        revision: Branch, tag or commit; None for the newest.
        file: Its path in the repository.
    """

    repo: str
    revision: str | None
    file: str

    def __str__(self) -> str:
        return f"hf://{self.repo}{f'@{self.revision}' if self.revision else ''}/{self.file}"


def is_hub_name(place: Path | str) -> bool:
    """Whether a place is meant to be on the Hub."""
    return str(place).startswith("hf:/")


def parse_hub_name(place: Path | str) -> HubName:
    """What a ticket's name on the Hub says; a path that does not end in .safetensors is an exported folder's.

    Raises:
        BadInput: If it is no such name.
    """
    name = split_hub_name(place)
    if not name.file.endswith(".safetensors"):
        name = name._replace(file=f"{name.file}/{TICKET_FILE}".removeprefix("/"))
    return name


def split_hub_name(place: Path | str) -> HubName:
    """Repository, revision and path in a name on the Hub; the path is "" where the name has none.

    Raises:
        BadInput: If it is no such name.
    """
    match = _HUB_NAME.fullmatch(str(place))
    if match is None or any(part in ("", ".", "..") for part in (match[3] or "ticket").split("/")):
        raise BadInput(f"{place} is no name on the Hugging Face Hub; write it hf://user/name[@revision][/path]")
    repo, revision, path = match.groups()
    return HubName(repo, revision, path or "")


def resolve_ticket_file(place: Path | str) -> Path:
    """The ticket file that a path, an exported folder or a name on the Hub means; it is not opened.

    Raises:
        BadInput: For a folder without a ticket of its own, or one on the Hub that cannot be fetched.
    """
    if is_hub_name(place):
        return download_from_hub(parse_hub_name(place))
    path = Path(place)
    if not path.is_dir():
        return path
    if (path / TICKET_FILE).is_file():
        return path / TICKET_FILE
    if found := sorted(path.glob("tickets/*.safetensors")):
        raise BadInput(
            f"{path} is the folder of a run with {len(found)} tickets; give one of them, such as {found[-1]}"
        )
    raise BadInput(
        f"{path} is no exported ticket, it holds no {TICKET_FILE}; give a folder that sslticket export wrote"
    )


def download_from_hub(name: HubName, *others: str) -> Path:
    """The file in the Hub's cache on this machine, downloaded where it is not there yet.

    Args:
        name: The file.
        *others: Further paths in the repository, which are tried in turn where it has no such file.

    Raises:
        BadInput: If there is no such file, it may not be read, or the Hub cannot be reached.
    """
    try:
        from huggingface_hub import constants, errors, hf_hub_download
    except ImportError:
        raise BadInput(f"{name} needs a package that is not installed; pip install huggingface_hub") from None
    try:
        for file in (name.file, *others):
            try:
                return Path(hf_hub_download(name.repo, file, revision=name.revision, library_name="sslticket"))
            except errors.EntryNotFoundError:  # also of a file that is not in the cache while there is no network
                if file == (name.file, *others)[-1]:
                    raise
        raise AssertionError("the last file is returned or not found")
    except errors.GatedRepoError:
        fix = f"accept its terms on https://huggingface.co/{name.repo} and run `hf auth login`"
        raise BadInput(f"{name} is for those who accept the terms of its owner; {fix}") from None
    except errors.RepositoryNotFoundError:
        fix = "check the name, or run `hf auth login`"
        raise BadInput(f"the Hugging Face Hub has no repository {name.repo}, or a private one; {fix}") from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"{name.repo} has no revision {name.revision}; give a branch, a tag or a commit of it") from None
    except errors.LocalEntryNotFoundError:
        fix = f"where there is a network, run `hf download {name.repo} {name.file}`, and give the file that it prints"
        asked = "was not asked, since HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "gave no answer"
        raise BadInput(
            f"{name} is not on this machine (in {constants.HF_HUB_CACHE}), and the Hugging Face Hub {asked}; {fix}"
        ) from None
    except errors.EntryNotFoundError:
        fix = "write hf://user/name/path for a file or an exported folder in it"
        raise BadInput(f"{name.repo} has no file {name.file}; {fix}") from None
    # HTTPError is that of the library beneath huggingface_hub, which has changed with its versions.
    except (ValueError, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        why = str(error).partition("\n")[0] or type(error).__name__
        raise BadInput(f"{name} cannot be fetched ({why}); try again, or download it and give the file") from None


def copy_from_hub(place: Path | str, out: Path) -> Path:
    """A copy below `out` of a ticket on the Hub, so that rows can lie beside it: none belong into the Hub's cache.

    Raises:
        BadInput: If it cannot be fetched.
    """
    name = parse_hub_name(place)
    source = download_from_hub(name)
    revision = f"@{name.revision.replace('/', '--')}" if name.revision else ""
    copy = out / f"{name.repo.replace('/', '--')}{revision}" / name.file
    with file_lock(copy):
        if not copy.is_file() or not filecmp.cmp(source, copy, shallow=False):
            with atomic_write(copy) as temporary:
                shutil.copyfile(source, temporary)
    return copy
