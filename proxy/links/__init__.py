"""Links: how two proxies find out that they mean each other, before the pump takes the connection over.

``handshake`` is the sans-IO part; ``carry`` takes it over a socket, for the dialling side and for ``accept``;
``options`` sets the sockets up; ``keepalive`` finds dead peers.
"""
