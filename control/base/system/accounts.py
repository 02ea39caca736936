"""The users and groups that a configuration names, and those that this machine does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec

from control.base.errors import StartError
from control.base.reading import units
from control.base.system.unixsock import group_number, user_number


def unknown_accounts(config: msgspec.Struct) -> Iterator[str]:
    """A line for each user and group that the configuration names, under whatever key, and that is not there. The key
    `group` names a group, any other one a user.
    """
    for path, value in _accounts(config, ""):
        look_up = group_number if path.rpartition(".")[2] == "group" else user_number
        try:
            look_up(path, value)
        except StartError as error:
            yield str(error)


def _accounts(found: Any, path: str) -> Iterator[tuple[str, int | str]]:
    if isinstance(found, Mapping):
        for name, each in found.items():
            yield from _accounts(each, f"{path}{name}.")
    elif isinstance(found, msgspec.Struct):
        for field in msgspec.structs.fields(found):
            value = getattr(found, field.name)
            if _names_account(field.type):
                if value is not None:
                    yield f"{path}{field.encode_name}", value
            else:
                yield from _accounts(value, f"{path}{field.encode_name}.")


def _names_account(kind: Any) -> bool:
    """Whether values of a key of this type are users or groups."""
    return any(getattr(each, "description", None) == units.ACCOUNT for each in get_args(kind)[1:])
