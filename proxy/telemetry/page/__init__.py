"""The page that a proxy serves: what is wrong, who talks to whom, and every number that the proxy has chosen, with its
reason (docs/page.md).

`problems` says what is broken and where; `changes` remembers since when; `serve` answers the browser. What the browser
shows is in `static`: one page, one sheet, one module, which ask this host and nobody else.
"""
