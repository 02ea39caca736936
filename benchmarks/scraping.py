"""Scrapes metrics as Prometheus does, once a second, until it is ended: ``python -m benchmarks.scraping URL...``. One
that does not answer is asked again a second later.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Sequence

EVERY = 1.0
"""Seconds between two scrapes of one URL."""
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scrape(url: str, timeout: float = EVERY) -> int:
    """Bytes of the answer; 0: there was none within `timeout` seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"accept": ACCEPT}), timeout=timeout) as answer:
            return len(answer.read())
    except OSError:
        return 0


def main(urls: Sequence[str]) -> None:
    """Until it is ended."""
    while True:
        began = time.monotonic()
        for url in urls:
            scrape(url)
        time.sleep(max(0.0, began + EVERY - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1:])
