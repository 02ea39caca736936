cimport cython

cdef int KEY_SHIFT
cdef bytes STEPS

cdef class Stream:
    cdef public long long id, received_grants, granted
    cdef public double granted_at
    cdef public object key
    cdef public int state
    # Last, and Lane's first: what every message touches lies on one or two lines of the cache.
    cdef public long long credit, allow
    cdef public unsigned long long word
    cdef public bint flowing

    cpdef begin(self, long long stream_id, int state, long long credit, long long allow)
    cpdef long long moved(self) except? -1
    @cython.locals(state=int)
    cpdef advance(self, int event)
    @cython.locals(state=int)
    cpdef advance_untrusted(self, int event)
