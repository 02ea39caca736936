from __future__ import annotations

import os
import resource
import socket

import pytest

from control.base.system.accepting import EXHAUSTED


def test_a_process_without_descriptors() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("")
        listening.listen()
        client.connect(listening.getsockname())
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(OSError) as caught:
                listening.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.errno in EXHAUSTED
        listening.accept()[0].close()  # it has waited
