"""One process takes the place of another without callers noticing: it is handed the listening sockets, not the streams.

The old proxy listens on a Unix socket of its own in run_dir. The new one connects to it and is told the name and mode
of every listening socket (``protocol``). Then, step by step:

1. The new process prepares everything that can fail, with what stands in for those sockets and new ones where it has
   others to open, and sends *ready*. The old one works on normally, and goes on so if the new one ends here.
2. The old process stops accepting, so that new connections wait in the kernel's queues, and sends *yours*. Only now
   does it send what has power: the descriptors of the sockets, those that lead to processes which still drain, and the
   lock and the secret of its state_dir.
3. The new process sends *taken*, owns the sockets and their files, and accepts what waits. If it ends before that
   message, or takes too long for it, the old one accepts again.
4. The old process closes its descriptors, tells its peers, lets its streams finish (proxy/agent/drain.py) and ends.

The kernel decides whether *taken* came in time, once and for both sides (`protocol.last_word`). An old process that
keeps its sockets sends *no*. If it sends nothing before its connection closes, it has ended, and the new one takes its
place.

So at each moment exactly one of the two accepts, and a caller waits at most for *yours* and *taken*.

``sender`` is the old side, and ``sockets`` what it hands over; ``receiver`` is the new side, and ``inheritance`` what
it has received; ``leash`` is the connection that an old process keeps with the one that accepts, and ``predecessors``
what that one does with it: it passes links on, divides memory (``memoryshares``), and bounds how many old processes go
on beside it; ``activation`` gets sockets from systemd instead, and ``fdstore`` has it keep them; ``startup`` collects
what a proxy listens on when it starts; with ``successor`` the old process starts the new one.
"""
