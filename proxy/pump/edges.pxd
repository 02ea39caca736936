cdef class Edge:
    cdef public object direction, caller, service, peer, reason, failing_since, used
    cdef public long long opened, ended, failed, sent, received

    cpdef over(self, reason, long long sent, long long received, double now)
