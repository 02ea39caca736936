cdef class Stream:
    cdef public unsigned long long id, word
    cdef public object state
    cdef public long long credit, allow, granted, received_grants
    cdef public double granted_at
