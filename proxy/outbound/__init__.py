"""Calls by local containers: the sockets they call through, and each call until the far side has delivered it.

``upstreams`` listens (on sockets by ``control.system.unixsock``); ``call`` is one call.
"""
