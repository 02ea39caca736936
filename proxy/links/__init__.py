"""Links: the handshake in which two proxies check each other's identity, before the pump takes the connection over.

``handshake`` is the sans-IO part; ``carry`` runs it over a socket, for the dialling side and for ``accept``;
``options`` sets the sockets up; ``keepalive`` finds dead peers.
"""
