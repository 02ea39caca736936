"""Calls by local containers: the sockets they call through, and each call until the far side has delivered it.

``upstreams`` listens (on sockets by ``control.base.system.unixsock``); the calls of one upstream come in at an
``acceptor``; ``call`` is one call that no link takes at once, ``calls`` what
all of them share.
"""
