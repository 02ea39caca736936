"""The clock of this machine, and the lives of certificates in PEM files."""

from __future__ import annotations

import ctypes
import time

from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.readers.runningproxy import told
from proxy.check.report import Unchecked
from proxy.check.rules.clock import CertificateValidity, ClockFacts

MAX_FILE_BYTES = 1 << 20
_TIME_ERROR = 5  # adjtimex(2)
_TIMEX_BYTES = 208


def read(context: DiagnosisContext) -> ClockFacts:
    """Of the first certificate in each file, which is the one that the file is about; and what the running proxy knows,
    if it has a control plane.
    """
    found = tuple(certificate(file) for file in context.certificates)
    config, said = context.config, None
    if config is not None and config.control is not None and (status := told(config).status) is not None:
        said = status.control
    return ClockFacts(
        now=time.time(),
        certificates=found,
        synchronised=synchronised(),
        renewal_error=None if said is None else said.renewal_error,
        ahead=None if said is None else said.clock_ahead_s,
    )


def certificate(file: str) -> CertificateValidity | Unchecked:
    """The life of the first certificate in a PEM file."""
    from cryptography import x509  # A tenth of a second, for those who have certificates.

    from control.api.identity import UNREADABLE

    try:
        with open(file, "rb") as stream:
            # Of more than a file of certificates has (a device, an image), the first one is as good as none.
            found = x509.load_pem_x509_certificate(stream.read(MAX_FILE_BYTES))
        return CertificateValidity(
            file=file,
            not_before=found.not_valid_before_utc.timestamp(),
            not_after=found.not_valid_after_utc.timestamp(),
        )
    except OSError as error:
        return files.unseen(file, error)
    except UNREADABLE:
        return Unchecked(file, "not a certificate in PEM form")


def synchronised() -> bool:
    """What adjtimex(2) says when it is asked to change nothing."""
    libc = ctypes.CDLL(None)
    return int(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))) != _TIME_ERROR
