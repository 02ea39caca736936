"""The image's health check: asks a proxy one question through its admin socket, in a few milliseconds of CPU.

    python -I -S probe.py [QUESTION [SOCKET]]      # alive, ready (the default) or mesh; v1/health of a control server

Exit 0: yes; 1: no, or no answer in time, with a line for each reason. It imports nothing but what is built into Python:
that takes a quarter of what any other start does, and an engine starts it every few seconds.
"""

import _socket
import sys

SOCKET = "/run/hostlane/admin.sock"
PATIENCE = 4.0
"""Seconds for the answer, less than the engine gives the check: a proxy that hangs takes connections, too."""
LARGEST = 65536


def ask(question: str, path: str) -> bytes:
    """The whole HTTP answer. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    sock.sendall(b"GET /%s HTTP/1.1\r\nHost: hostlane\r\nConnection: close\r\n\r\n" % question.encode())
    found = b""
    while len(found) < LARGEST and (piece := sock.recv(LARGEST)):
        found += piece
    return found


def main(words: list[str]) -> int:
    """Ask, say what is wrong, and return the exit code."""
    question, path = [*words, *("ready", SOCKET)[len(words) :]][:2]
    try:
        found = ask(question, path)
    except TimeoutError:
        sys.stdout.write(f"{path}: no answer in {PATIENCE:g} s\n")
        return 1
    except OSError as error:
        sys.stdout.write(f"{path}: {error.strerror}\n")
        return 1
    if found.startswith(b"HTTP/1.1 200"):
        return 0
    sys.stdout.write(found.partition(b"\r\n\r\n")[2].decode("utf-8", "replace") + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
