"""The pump: the only code that moves bytes. One trio task around a nested epoll owns every data-plane descriptor.

* ``turn``: the common case and nothing else: bytes of streams in plain flow.
* ``loop``: polls the epoll, calls what handles each event, and ends every turn.
* ``lane``: a stream with its local socket.  ``session``: a session of lanes.  ``link``: a link with the session that
  it carries.  ``carrier``: what these three know of each other.  ``splice``: two local sockets, no frames.
* ``lastwords``: a local socket whose stream is over, until its reader has everything.
* ``listener``, ``connecting``: where local sockets come from.  ``budget``, ``deadlines``, ``options``: what they share.
"""
