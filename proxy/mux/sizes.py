"""Bytes: of the out-buffer, and what is received before the peer is told; and places for a session's streams."""

from __future__ import annotations

from proxy.mux.frames import HEADER_SIZE

SLAB_SIZE = 256 * 1024
"""Of a slab: four times the largest payload, so a frame that does not fit leaves at most about a quarter unused."""
CHUNK = 16 * 1024
"""What the fast path reads from a local socket at most; a stream that fills it counts as bulk and leaves the fast
path."""
EARLY_LIMIT = CHUNK
"""What may be read before the peer answers OPEN. It is kept for another host, in case this one refuses."""
FAST_LIMIT = SLAB_SIZE - HEADER_SIZE - CHUNK
"""Where in a slab the fast path begins a frame at the latest: the largest that it makes has room there."""
HIGH_WATER = 256 * 1024
"""What may be unsent; above it `ReplayBuffer.room` refuses data. The fast path asks only when a slab is full, so there
may be up to SLAB_SIZE more."""
ACK_EVERY = 256 * 1024
"""Bytes received after which an ACK is due. Not earlier, because an ACK costs both hosts as much as several messages;
and half of what the smallest replay buffer keeps, so that bulk never waits for one."""
NEAR = 1023
"""Mask of the number of a place in `Session.near`, whose places take 8 KiB in each session. (A stream's id is shifted
by a bit first: those that one side opens are all odd or all even.)"""
