"""Calls by local containers: the sockets they call through, and each call until the far side has delivered it.

``upstreams`` owns the listening sockets, which ``sockets`` opens, keeps and closes. An ``acceptor`` takes the calls of
one upstream. ``connectsocket`` takes those of the CONNECT socket, whose ``connecthead`` names a service, and makes each
a ``connectcall``. ``call`` is one call that no link took at once; ``calls`` is what all calls share.
"""
