cimport cython
from proxy.core.syscalls cimport now
from proxy.pump.loop cimport Pump

cdef int PEER_FRAMES, SLOW_FRAMES
cdef double PEER_TIME

cdef class TurnShare:
    cdef public Pump _pump
    cdef public object _queue
    cdef public long long _turn
    cdef public int _left
    cdef public double _time_left, _since
    cdef public bint _serving, _others_first

    cpdef int take(self, link, double at) except -1
    cpdef bint more(self) except -1
    cpdef double clock(self) except? -1
    cpdef took(self, int frames)
    cpdef wait(self, link)
    cpdef ready(self, unsigned int mask)
