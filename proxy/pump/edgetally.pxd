from proxy.core.syscalls cimport now

cdef class EdgeTally:
    cdef public long long opened, ended, sent, received
    cdef public object failing_since

    cpdef over(self, reason, long long sent, long long received)
