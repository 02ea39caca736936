cdef object _FINISHED

cdef class StreamStats:
    cdef public object counts, access, refused, edges, _idle
    cdef public long long opened, ended, aborted
    cdef public int _awaited
    cdef public bint trace
    cdef public dict failures, _taps

    cpdef log_of(self, service)
    cpdef bint end(self, reason) except -1
