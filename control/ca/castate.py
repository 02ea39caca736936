"""Which CAs are in force and which one issues: one item of the store, on which all control servers agree, and the steps
of a rotation from one to the next (sans-IO).

Only certificates stand in the store. The keys are files on the control servers (`control.ca.keyfiles`).
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct, structs

from control.base.errors import RequestRefused

KEY = "ca/state"


class KnownRoot(Struct, frozen=True, kw_only=True):
    """A CA in force: its id (`control.ca.root.root_id`) and its certificate (PEM)."""

    id: str
    certificate: str


class CaState(Struct, frozen=True, kw_only=True):
    """See the module's text.

    Attributes:
        roots: one, or two during a rotation (more only when a store that was lost in one is made anew).
        issuing: id of the one that issues.
        renew_before: certificates issued before this time (seconds since 1970) are not of the one that issues.
        dropped: ids that were in force once; their keys are of no use any more.
    """

    mesh: str
    roots: tuple[KnownRoot, ...]
    issuing: str
    renew_before: float = 0.0
    dropped: tuple[str, ...] = ()

    @property
    def bundle(self) -> str:
        """PEM of all CAs in force, the one that issues first."""
        return "".join(root.certificate for root in sorted(self.roots, key=lambda root: root.id != self.issuing))

    @property
    def other(self) -> str | None:
        """Id of the newest one that does not issue, if there is one."""
        others = [root.id for root in self.roots if root.id != self.issuing]
        return others[-1] if others else None


def encode(state: CaState) -> bytes:
    """The item's value."""
    return msgspec.json.encode(state)


def decode(value: bytes) -> CaState:
    """From the item's value. Raises ValueError (msgspec.DecodeError) if that is something else."""
    return msgspec.json.decode(value, type=CaState)


def add(state: CaState, root: KnownRoot) -> CaState:
    """The state with one more CA, which hosts trust then. Raises RequestRefused (409) in the middle of a rotation."""
    if len(state.roots) > 1:
        text = f"CA {state.other} is in force beside {state.issuing} already; activate it, or drop the one not in use"
        raise RequestRefused(409, "in_rotation", text)
    return structs.replace(state, roots=(*state.roots, root))


def activate(state: CaState, now: float) -> CaState:
    """The state in which the other CA issues, and all certificates are to be renewed. Raises RequestRefused (409)
    without another one.
    """
    if state.other is None:
        raise RequestRefused(409, "nothing_to_activate", f"CA {state.issuing} is the only one; add one first")
    # Certificates know whole seconds: one of this second may still be the old CA's.
    return structs.replace(state, issuing=state.other, renew_before=math.floor(now) + 1.0)


def drop(state: CaState) -> CaState:
    """The state without the CA that does not issue. Raises RequestRefused (409) without one."""
    if state.other is None:
        raise RequestRefused(409, "nothing_to_drop", f"CA {state.issuing} is the only one, and it issues")
    rest = tuple(root for root in state.roots if root.id != state.other)
    return structs.replace(state, roots=rest, dropped=(*state.dropped, state.other))
