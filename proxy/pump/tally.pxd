cimport cython
from proxy.pump.lane cimport Lane

cdef object _FINISHED, _ABORTED

cdef class Totals:
    cdef public long long opened, ended, aborted
    cdef public int awaited
    cdef public bint trace
    cdef public dict failures, taps
    cdef public object access

    cpdef log_of(self, service)
    cpdef bint end(self, reason) except -1

cdef class Tally:
    cdef public long long count

cdef class Opened:
    cdef public long long opened

cdef class Countdown:
    cdef public long long left

cdef class StreamTally:
    cdef public list ended
    cdef public long long sent, received

    @cython.locals(number=Py_ssize_t)
    cpdef end(self, Lane lane, reason)
    @cython.locals(sent="long long", received="long long")
    cpdef look(self, Lane lane)
