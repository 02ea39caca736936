cdef class Slab:
    cdef public bytearray buf
    cdef public object mem
    cdef public long long start, end

cdef class SlabPool:
    cdef public object left
    cdef public Py_ssize_t in_use
    cdef list _free
    cdef Py_ssize_t _keep

cdef class ReplayBuffer:
    cdef public list touched, later
    cdef public long long base, sent, acked
    cdef public bint dirty, deferrable, overrun
    cdef public bytearray buf
    cdef public object mem
    cdef public Py_ssize_t pos, limit
    cdef SlabPool _pool
    cdef public long long _bound
    cdef object _older
    cdef bint _closed
    cdef Slab _current
