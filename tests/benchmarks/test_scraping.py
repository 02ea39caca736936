from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from benchmarks import scraping
from tests.tools.sockets import free_ports


class Answering(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers["accept"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"metrics 1\n")

    def log_message(self, *words: object) -> None: ...


def test_it_asks_as_prometheus_does() -> None:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert scraping.scrape(f"http://127.0.0.1:{server.server_port}/metrics") == 10
        thread.join()
    assert Answering.asked[0].startswith("application/openmetrics-text")


def test_who_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    assert scraping.scrape(f"http://127.0.0.1:{port}/") == 0
    asked: list[str] = []

    def scrape(url: str) -> int:
        asked.append(url)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(scraping, "scrape", scrape)
    monkeypatch.setattr(scraping, "EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        scraping.main(["a", "b"])
    assert asked == ["a", "b", "a", "b"]
