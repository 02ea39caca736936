from proxy.pool.usage cimport PoolUsage

cdef class UsageLearner:
    cdef public PoolUsage _usage
    cdef public object _peer, _bulk, _recorder, _waiting, _stream_ended
    cdef public long long notable

    cpdef began(self)
    cpdef ended(self)
