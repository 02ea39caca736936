from __future__ import annotations

from proxy.links.revoked import RevokedSerials


def test_what_is_new_is_told() -> None:
    revoked = RevokedSerials()
    assert "ab" not in revoked
    assert revoked.adopt(["ab", "cd"]) == {"ab", "cd"}
    assert revoked.adopt(["cd", "ef"]) == {"ef"}
    assert "ab" not in revoked
    assert "ef" in revoked
    assert len(revoked) == 2
