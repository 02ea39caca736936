"""Links: how two proxies find out that they mean each other, before the pump takes the connection over.

``handshake`` is the sans-IO part; ``dial`` and ``accept`` carry it out; ``options`` sets the sockets up; ``keepalive``
finds dead peers.
"""
