from proxy.pool.history cimport UseHistory

cdef class PoolUsage:
    cdef public UseHistory history
    cdef public long long busy, avoided, warm, ahead
    cdef public object plan, _terms, _since
    cdef public bint _measured
    cdef public dict _bulk
    cdef public set counted

    cpdef began(self, double now)
    cpdef ended(self, double now)
