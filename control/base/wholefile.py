"""Files that are read whole, and are there whole or not at all, whatever happens while they are written, a power cut
included.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress


def read_file(path: str, most: int, allowed: str) -> bytes:
    """All of a file that a person or a program has put there.

    Args:
        most: bytes, whole MiB; a larger one is refused unread: an image or a device named by mistake.
        allowed: what the file should be, for that error.

    Raises ValueError, worded "what was found; what is allowed" or the system's reason. Blocks on the file system.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError((error.strerror or "not readable").lower()) from None
    if len(content) > most:
        raise ValueError(f"found more than {most >> 20} MiB; allowed: {allowed}")
    return content


def write_file(path: str, content: bytes, mode: int, *, replace: bool = True) -> None:
    """Write the file beside its place, flush it to the disk, and give it its name.

    Raises OSError, and leaves what was there; FileExistsError if `replace` is False and something is there. Blocks on
    the disk.
    """
    temporary = f"{path}.{secrets.token_hex(4)}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
        if replace:
            os.rename(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_directory(os.path.dirname(path) or ".")


def write_new(path: str, text: str) -> None:
    """A configuration that was not there, and its directory if that is missing: for everybody to read, whatever umask
    says, as the daemon that it is for is another user.

    Raises OSError; FileExistsError if something is there.
    """
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        os.makedirs(directory)
        os.chmod(directory, 0o755)
    write_file(path, text.encode(), 0o644, replace=False)


def sync_directory(path: str) -> None:
    """So that names in it survive a power cut, too. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
