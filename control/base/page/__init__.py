"""The page that proxies and control servers show to a browser (docs/page.md): one page, one sheet, one module, in
`static`, which ask whoever serves them and nobody else; `serve` answers, `since` remembers since when something is so.
"""
