"""How much the loop does before it sends, looks again, or lets trio's other tasks run. docs/performance.md has the
figures.

(A module of its own, so that they are C's numbers where the loop is compiled.)
"""

from __future__ import annotations

MAX_EVENTS = 48
"""Events per turn. Few enough that the peer works on one turn's messages while this host gathers the next (with 128
events for 128 connections the hosts idle alternately: a quarter fewer messages, docs/performance.md), and many enough
that one send carries many messages."""
SEND_FIRST = 4
"""Flush after this many opens and closes in a turn, then after twice as many, and so on, so that the peer starts early.
Each (or any other event outside plain flow) costs as much as 10 to 20 messages. The number doubles because a send for
many is cheaper (docs/performance.md)."""
FEW_EVENTS = 8
"""Events per turn while few are ready at a time: the peer then works on these messages while this host gathers the next
(at 16 connections a fifth to a third more; a crowd would pay for it)."""
PROBE = 15
"""Every 16th look (a mask of their count) takes as many as there are, and shows which of the two fits."""
LONG_TURN = 0.001
"""Seconds; the turns that take longer are counted by themselves."""
LINGER = 5
"""Milliseconds. A shorter wait costs a conversation with pauses more: the kernel sets a timer each time."""
LINGER_DEFERRED = 1
"""Milliseconds, while deferrable frames wait; the epoll's resolution, so the shortest wait there is."""
MAX_BUSY = 0.005
"""Seconds of turns without a break after which trio's other tasks run. Such a visit costs 0.2 ms, as nothing of it is
in the processor's caches; but a handshake, a scrape, a CONNECT call need several of them."""
SLICE = 16 * 1024
"""Bytes. `turn.deliver` begins no frame behind so many, so that its caller can look at the clock: to send one byte
takes as long as to send a thousand."""
SLOW_FRAMES = 16
"""Frames other than plain DATA that one link handles in a turn. Opening a stream costs as much as 20 messages. The rest
waits for the next turn, so that the answers to these go out first (docs/performance.md)."""
PEER_FRAMES = 2 * SLOW_FRAMES
"""The same for all links of a peer."""
PEER_TIME = 0.005
"""Seconds of a turn for all links of a peer; who begins a SLICE within it finishes that. A turn's worth of honest
frames takes less, also where a service on the same core interrupts it: with 1 ms, a bulk stream beside small messages
had a third less of everything (benchmarks, `mixed`)."""
LOOKING = 120e-6
"""Seconds for which `auto` looks at most: as long as a peer on the same switch needs for its answer. (With 250 µs,
3,000 paced messages a second cost twice the CPU time, docs/performance.md.)"""
SHORT = 200e-6
"""Seconds; a wait this short counts. Longer than LOOKING, as it ends with being woken."""
ENOUGH = 8
"""Short waits after which it begins. What it finds by looking counts as one; of up to twice as many, a longer wait or
a look in vain takes half. With fewer, messages that come at a steady rate now and then look like answers."""
WINDOW = 64
"""Turns over which the descriptors are counted that came first in one."""
FEW_SPEAK = 20
"""It does not look when there were more: links and eighteen conversations. (20,000 paced messages a second on 32
connections, of which 28 come first in such a window, leave no wait longer than LOOKING; it would look whenever it does
not work. With 12 of 32 turns, sixteen conversations that wait for their answers had a fifth fewer messages.)"""
TAKEN = 500e-6
"""Seconds between two looks that show that somebody else wants the core."""
PAUSE = 10e-3
"""Seconds without looking after that."""
