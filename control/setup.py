"""``hostlane control init``: what a mesh needs before its first control server starts, and what its administrator does
next. (The control server's own certificate is not made here: the server makes itself one when it starts, and a new one
at half of its life.)
"""

from __future__ import annotations

import os

from control.errors import StartError
from control.keyfiles import KeyFiles
from control.system.wholefile import write_file

CA_FOLDER = "ca"
"""Of ``state_dir``: where the CA's files are."""

_CONFIG = """\
# One control server with its own store. Every key: configs/control-reference.yaml.
name: {name}
mesh: {mesh}
# Where hosts reach it: an address of this machine.
listen: "{listen}"
# The CA and the store: back this directory up, and let nobody else read it.
state_dir: {state_dir}
store:
  sqlite: {{path: {state_dir}/store.db}}
"""

_NEXT = """\
The CA of mesh {mesh} is {ca}; its key is {key}.
Whoever has that key can pose as any host: keep a copy where nobody reads it.

Next:
  hostlane control --config {config}
  hostlane token create --host host-a > token            # one for each host
On host-a, put it in a file that only the proxy reads, and into the proxy's configuration:
  mesh: {mesh}
  control: {{servers: ["{listen}"], token_file: /etc/hostlane/token}}
"""


def keys_of(state_dir: str, key_files: tuple[str, ...] = ()) -> KeyFiles:
    """The CA's files of a control server; `key_files`: keys that the operator keeps elsewhere."""
    return KeyFiles(os.path.join(state_dir, CA_FOLDER), key_files)


def make_ca(state_dir: str, mesh: str, now: float, key_files: tuple[str, ...] = ()) -> str:
    """A mesh's first CA; returns its id. See `KeyFiles.create`. Raises StartError; nothing is ever overwritten."""
    return keys_of(state_dir, key_files).create(mesh, now).id


def write_config(path: str, *, name: str, mesh: str, listen: str, state_dir: str) -> None:
    """A configuration to begin with. Raises StartError, and changes nothing, if there is a file already."""
    text = _CONFIG.format(name=name, mesh=mesh, listen=listen, state_dir=state_dir)
    try:
        write_file(path, text.encode(), 0o644, replace=False)
    except FileExistsError:
        raise StartError(f"{path}: is there already, and is not overwritten") from None
    except OSError as error:
        raise StartError(f"{path}: {(error.strerror or 'not writable').lower()}") from None


def next_steps(*, config: str, mesh: str, listen: str, state_dir: str, ca: str, key_file: str | None = None) -> str:
    """What the administrator reads when all of it is made."""
    key = key_file or os.path.join(state_dir, CA_FOLDER, f"{ca}.key")
    return _NEXT.format(config=config, mesh=mesh, listen=listen, ca=ca, key=key)
