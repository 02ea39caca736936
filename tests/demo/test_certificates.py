from __future__ import annotations

import stat
import time
from pathlib import Path

from proxy.config.schema import TlsFiles
from proxy.demo.certificates import CertificateAuthority
from proxy.links.credentials import RequiredIdentity, read


def test_a_host_may_use_what_is_written_for_it(tmp_path: Path) -> None:
    section = CertificateAuthority().write(tmp_path, "host-a", mesh="m")
    found = read(TlsFiles(**section), RequiredIdentity("m", "host-a"), time.time())
    assert found.not_before < time.time() < found.not_after
    assert stat.S_IMODE(Path(section["key"]).stat().st_mode) == 0o600


def test_again_is_another_file_of_the_same_name(tmp_path: Path) -> None:
    authority = CertificateAuthority()
    first = {name: Path(path).stat().st_ino for name, path in authority.write(tmp_path, "host-a").items()}
    again = {name: Path(path).stat().st_ino for name, path in authority.write(tmp_path, "host-a").items()}
    assert first.keys() == again.keys()
    assert all(first[name] != again[name] for name in first)
    assert len(list(tmp_path.iterdir())) == 3
