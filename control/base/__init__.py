"""What proxy and control plane both stand on: how configuration is read (``reading``), logs and socket files
(``system``), how a server speaks HTTP (``http``), an HTTP client of a Unix socket (``unixhttp``), and a few pieces of
their own: the root of all errors, what commands say when they fail, what httpx leaves behind (``httpclient``), files
written whole, token buckets and limits made of them, backoff.
"""
