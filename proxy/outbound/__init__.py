"""Calls by local containers: the sockets they call through, and each call until the far side has delivered it.

``unixsock`` (with ``socketpath`` and ``ownfiles``) is the life of a listening Unix socket; ``upstreams`` listens;
``call`` is one call.
"""
