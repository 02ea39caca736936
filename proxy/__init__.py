"""The proxy of one host: a map of its words and of the data's way.

A **host** is a machine that runs one proxy; the proxy on another host is its **peer**. Containers call a **service**
through an **upstream**, a local socket. Two proxies keep **links** between them, each one TCP connection. On a link
runs a **session**, which carries **streams**; a stream is one container connection, and **credit** is what its receiver
still allows it, in bytes. All sessions to one peer are a **pool**. The **pump** moves the bytes. Why a stream or a link
ended is its **close reason** (``errors.py``), the same in logs, on the wire and on the command line.

::

    container ─unix─▶ outbound ─▶ routing ─▶ pool ─▶ mux session ─▶ link ══ macvlan / VF ══▶
                      (who listens) (where to) (which session)
                                  ══▶ link ─▶ mux session ─▶ inbound ─unix/tcp─▶ container

    same host:        outbound ─▶ routing ─▶ inbound       (the pump splices socket to socket, no frames)

``agent/parts.py`` builds every part once. ``mux``, ``links.handshake``, ``pool.policy`` and ``routing`` do no I/O:
bytes, times and numbers go in, bytes and decisions come out. trio owns what lives and dies (listeners, dialling,
timers, shutdown); one task, ``pump.loop``, owns every data-plane descriptor. Imports go one way;
tests/rules/test_imports.py holds the table.
"""

from proxy.core.finder import install as _choose_core

# Before any module of it is imported: whether the core (mux, pump and what they touch) runs compiled.
_choose_core()
