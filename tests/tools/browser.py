"""Debian's chromium, driven as a user would: headless, with an empty profile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER, DRIVER = "chromium", "chromedriver"
Browser = webdriver.Chrome


def missing() -> str | None:
    """Why there is no browser, or None."""
    gone = [name for name in (BROWSER, DRIVER) if shutil.which(name) is None]
    return f"no {' and no '.join(gone)} (Debian: apt-get install chromium chromium-driver)" if gone else None


@contextmanager
def browsing(*, width: int = 1280, height: int = 1000) -> Iterator[Browser]:
    """A browser, which is ended with the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(BROWSER) or BROWSER
    for each in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars",
                 "disable-background-networking", "no-proxy-server", f"window-size={width},{height}"):  # fmt: skip
        options.add_argument(f"--{each}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(shutil.which(DRIVER)))
    try:
        yield browser
    finally:
        browser.quit()


def complaints(browser: Browser) -> list[str]:
    """What the console has said since the last call: errors of the page, refusals by its policy."""
    return [f"{entry['level']}: {entry['message']}" for entry in browser.get_log("browser")]
