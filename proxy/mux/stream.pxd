cdef int KEY_SHIFT

cdef class Stream:
    cdef public long long id, received_grants, granted
    cdef public double granted_at
    cdef public object state
    # Last, and Lane's first: what every message touches lies on one or two lines of the cache.
    cdef public long long credit, allow
    cdef public unsigned long long word
    cdef public bint flowing

    cpdef begin(self, long long stream_id, state, long long credit, long long allow)
    cpdef advance(self, event)
    cpdef advance_untrusted(self, event)
