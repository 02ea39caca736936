cimport cython
from proxy.pump.lane cimport Lane

cdef class Tally:
    cdef public long long count

cdef class StreamCount:
    cdef public list ended
    cdef public dict retries
    cdef public long long sent, received
    cdef public double credit, link, reader

    cpdef end(self, Lane lane, reason)
    @cython.locals(sent="long long", received="long long")
    cpdef look(self, Lane lane)

cdef class CalledCount:
    cdef public long long opened
    cdef public object wait, open, first_byte

cdef class DeliveredCount:
    cdef public long long opened
    cdef public object connect

cdef class StreamSampler:
    cdef public bint _fixed
    cdef public long long left, _every, _picked
    cdef public double _begun

    @cython.locals(weight="long long")
    cpdef picked(self, double now)
