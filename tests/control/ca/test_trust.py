from __future__ import annotations

import time

import pytest

from control.api import certificates
from control.api.mesh import TrustBundle
from control.ca import castate
from control.ca import root as ca
from control.ca.castate import CaState, KnownRoot
from control.ca.trust import TrustView

ROOT = ca.new_root("m", time.time()).certificate
PEM = certificates.pem(ROOT)
STATE = CaState(mesh="m", roots=(KnownRoot(id="one", certificate=PEM),), issuing="one", renew_before=7.0)


def test_out_of_items() -> None:
    view = TrustView()
    assert view.trust is None
    assert not view.put("hosts/a", b"x")
    assert not view.put("revoked/ab", b"{}")
    assert view.revoked == {"ab"}
    assert view.put(castate.KEY, castate.encode(STATE))
    assert view.trust == TrustBundle(bundle=PEM, revoked=("ab",), renew_before=7.0)
    assert view.issuers == {ca.issuer_of(ROOT)}
    assert not view.put(castate.KEY, castate.encode(STATE))
    assert view.put("revoked/0c", b"{}")
    assert view.trust is not None
    assert view.trust.revoked == ("0c", "ab")
    assert view.put("revoked/ab", None)
    assert not view.put("revoked/ab", None)
    assert view.put(castate.KEY, None)
    assert view.trust is None
    assert not view.issuers
    view.clear()
    assert view.revoked == frozenset()


def test_junk_changes_nothing() -> None:
    view = TrustView()
    view.put(castate.KEY, castate.encode(STATE))
    before = view.trust
    with pytest.raises(ValueError):
        view.put(castate.KEY, b"junk")
    assert view.trust is before
