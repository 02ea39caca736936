"""What hosts may believe (`control.api.mesh.TrustBundle`), out of items of the store (sans-IO)."""

from __future__ import annotations

from control.api import certificates
from control.api.mesh import TrustBundle
from control.ca import castate
from control.ca import root as ca

PREFIXES = ("ca/", "revoked/")
"""Of the keys that `TrustView` is made of."""
REVOKED = "revoked/"


class TrustView:
    """The items under PREFIXES, kept up to date by whoever watches the store.

    Attributes:
        trust: None as long as there is no CA.
        revoked: serials that no longer count (those in `trust`), for a quick look at a client's certificate.
        issuers: `control.ca.root.issuer_of` the CAs in force, for the same look.
    """

    def __init__(self) -> None:
        self.trust: TrustBundle | None = None
        self.revoked: frozenset[str] = frozenset()
        self.issuers: frozenset[bytes] = frozenset()
        self._state: castate.CaState | None = None

    def put(self, key: str, value: bytes | None) -> bool:
        """An item is this now (None: gone); returns whether `trust` is another one by that. Other keys are ignored.

        Raises ValueError, and changes nothing, if the value is none that a control server writes.
        """
        if key == castate.KEY:
            state = None if value is None else castate.decode(value)
            bundle = "" if state is None else state.bundle
            self.issuers = frozenset(map(ca.issuer_of, certificates.read_roots(bundle) if bundle else ()))
            self._state = state
        elif key.startswith(REVOKED):
            change = {key.removeprefix(REVOKED)}
            self.revoked = self.revoked - change if value is None else self.revoked | change
        else:
            return False
        before, state = self.trust, self._state
        revoked = tuple(sorted(self.revoked))
        self.trust = None
        if state is not None:
            self.trust = TrustBundle(bundle=state.bundle, revoked=revoked, renew_before=state.renew_before)
        return self.trust != before

    def clear(self) -> None:
        """Forget everything: the store is read anew."""
        self.trust, self.revoked, self.issuers, self._state = None, frozenset(), frozenset(), None
