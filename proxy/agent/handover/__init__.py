"""One process takes the place of another, and no caller notices: listening sockets change hands, streams do not.

The old proxy listens on a Unix socket of its own in run_dir. The new one connects to it and gets a descriptor of every
listening socket (``protocol`` is how). From then on, step by step:

1. The new process prepares everything that can fail, with those sockets and such of its own as it lacks, and says
   *ready*. The old one goes on as if nothing had happened, and keeps doing so should the new one end here.
2. The old process leaves what comes in the sockets' queues and says *yours*.
3. The new process says *taken*, owns the sockets and their files, and accepts what waits. Should it end before that
   word, or take too long for it, the old one takes from the queues again.
4. The old process closes its descriptors, says goodbye to its peers, lets its streams finish (proxy/agent/drain.py),
   ends.

Whether *taken* was said in time is the kernel's to decide, once for both (`protocol.last_word`). An old process that
keeps its sockets says *no*; one that is silent has ended, and the new one takes its place.

So at each moment exactly one of the two answers, and a connection attempt waits, at worst, for two of these words.

``sender`` is the old side and ``sockets`` what it gives, ``receiver`` the new one and ``inheritance`` what it has got;
``activation`` gets sockets from systemd instead; ``startup`` puts together what a proxy listens on when it starts;
``successor`` has the old process start the new one.
"""
