from __future__ import annotations

import os
from pathlib import Path
from time import time

import pytest

from control.api.mesh import TrustBundle
from control.base import wholefile
from proxy.demo.certificates import CertificateAuthority
from proxy.errors import StartError
from proxy.links.credentials import RequiredIdentity, read
from proxy.links.keyring import Keyring
from proxy.mesh import statedir
from proxy.mesh.statedir import StateDir

CA = CertificateAuthority()
ME = RequiredIdentity("hostlane", "host-a")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(str(tmp_path / "state"))
    made.prepare()
    return made


def save(state: StateDir) -> str:
    """A fresh set; its certificate."""
    certificate, key = CA.issue("spiffe://hostlane/host/host-a")
    state.save(key.decode(), certificate.decode(), CA.certificate.decode())
    return certificate.decode()


def held(state: StateDir) -> str:
    """The certificate in force, of a set that is whole."""
    assert state.holds_identity
    read(state.files, ME, time())
    return Path(state.files.certificate).read_text()


def test_it_is_made(state: StateDir) -> None:
    assert os.stat(state.path).st_mode & 0o777 == 0o700
    assert not state.holds_identity
    state.prepare()


def test_it_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="control.state_dir: .*/file/state: not a directory"):
        StateDir(str(tmp_path / "file" / "state")).prepare()


def test_a_set(state: StateDir) -> None:
    certificate = save(state)
    assert held(state) == certificate
    assert os.stat(state.files.key).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(state.files.key)).st_mode & 0o777 == 0o700
    assert state.bundle() == CA.certificate.decode()


def test_the_last_two_sets_stay(state: StateDir) -> None:
    saved = [save(state) for _ in range(4)]
    assert held(state) == saved[-1]
    assert len([name for name in os.listdir(state.path) if name.startswith("identity-")]) == 2


def test_another_bundle(state: StateDir) -> None:
    certificate, key = save(state), Path(state.files.key).read_text()
    both = CA.certificate.decode() + CertificateAuthority().certificate.decode()
    state.save_bundle(both)
    assert held(state) == certificate
    assert Path(state.files.key).read_text() == key
    assert state.bundle() == both


STEPS = ("mkdir", "open", "fsync", "rename", "symlink", "unlink")


class Crash(BaseException):
    """The machine stops: nothing after it happens."""


@pytest.mark.failure(12)
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_moment_leaves_a_set_that_is_whole(
    state: StateDir, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    save(state)
    for count in range(1, 12):
        left = count
        real = getattr(os, step)

        def crash(*arguments: object, real: object = real, **options: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Crash
            return real(*arguments, **options)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            patch.setattr(os, step, crash)
            try:
                new = save(state)
            except Crash:
                new = ""
        found = held(state)
        assert not new or found == new
    assert held(state) != save(state)


def test_what_a_crash_left_is_swept(state: StateDir) -> None:
    save(state)
    os.mkdir(f"{state.path}/identity-dead")
    os.symlink("identity-dead", f"{state.path}/identity-dead.link")
    Path(state.path, "map.json").touch()
    save(state)
    assert "identity-dead" not in os.listdir(state.path)
    assert "identity-dead.link" not in os.listdir(state.path)
    assert "map.json" in os.listdir(state.path)


def test_a_full_disk_keeps_the_old_set(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    old = save(state)

    def full(fd: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(state)
    assert held(state) == old
    assert len([name for name in os.listdir(state.path) if name.startswith("identity-")]) == 1


def test_a_keyring_takes_a_new_set_over(state: StateDir) -> None:
    save(state)
    keyring = Keyring(state.files, ME)
    before = keyring.current
    keyring.revoked.adopt(["ab"])
    save(state)
    keyring.reload()
    assert keyring.current.serial != before.serial
    assert "ab" in keyring.current.revoked
    new = keyring.current
    keyring.look()
    keyring.look()
    assert keyring.current is new


def test_trust_is_kept(state: StateDir) -> None:
    assert state.trust() is None
    trust = TrustBundle(bundle="x", revoked=("ab",), renew_before=7.0)
    state.save_trust(trust)
    assert state.trust() == trust
    assert os.stat(f"{state.path}/trust.json").st_mode & 0o777 == 0o600
    for junk in (b"", b"junk", b"\xff", b"[]"):
        Path(state.path, "trust.json").write_bytes(junk)
        assert state.trust() is None


def test_the_disk_is_asked(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is flushed before the link points to it."""
    flushed: list[str] = []
    real, swap = os.fsync, os.rename

    def fsync(fd: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    def rename(old: str, new: str) -> None:
        if new.endswith("/identity"):
            assert sum("identity-" in path for path in flushed) >= 6
            assert state.path in flushed
        swap(old, new)

    monkeypatch.setattr(wholefile.os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    save(state)


@pytest.mark.failure("30a")
def test_a_set_is_reserved_before_it_is_filled(state: StateDir) -> None:
    """What comes later needs no more room than there is by then, and is as long as it is."""
    old = save(state)
    certificate, key = CA.issue("spiffe://hostlane/host/host-a")
    with state.reserve(key.decode()) as reserved:
        folder = Path(state.path, reserved._name)
        assert (folder / "key.pem").read_bytes() == key
        blocks = {name: os.stat(folder / name).st_blocks for name in ("certificate.pem", "ca.pem")}
        assert all(512 * count >= statedir.ROOM for count in blocks.values())
        assert held(state) == old
        reserved.fill(certificate.decode(), CA.certificate.decode())
        assert held(state) == certificate.decode()
    assert held(state) == certificate.decode()
    for name in blocks:
        assert os.stat(folder / name).st_blocks <= blocks[name]


@pytest.mark.failure("30a")
def test_a_set_that_is_not_filled_leaves_nothing(state: StateDir) -> None:
    old = save(state)
    before = sorted(os.listdir(state.path))
    with pytest.raises(ZeroDivisionError), state.reserve("key"):
        raise ZeroDivisionError
    assert sorted(os.listdir(state.path)) == before
    assert held(state) == old
