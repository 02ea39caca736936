cdef int KEY_SHIFT

cdef class Stream:
    cdef public long long id, credit, allow, received_grants, granted
    cdef public unsigned long long word
    cdef public double granted_at
    cdef public object state
    cdef public bint flowing

    cpdef begin(self, long long stream_id, state, long long credit, long long allow)
    cpdef advance(self, event)
    cpdef advance_untrusted(self, event)
