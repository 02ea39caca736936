cimport cython
from proxy.core.syscalls cimport put_bytes, put_word, word_at

cdef Py_ssize_t FAST_LIMIT, HEADER_SIZE, HIGH_WATER, SLAB_SIZE
cdef int KEY_SHIFT

cdef class ReplayBuffer

@cython.final
cdef class Slab:
    cdef public bytearray buf
    cdef public object mem
    cdef public long long start, end

cdef class Flusher:
    cpdef flush(self)

@cython.final
cdef class FlushQueue:
    cdef public ReplayBuffer first, last
    cpdef int add(self, ReplayBuffer out) except -1
    @cython.locals(out=ReplayBuffer)
    cpdef ReplayBuffer take(self)

@cython.final
cdef class ReplayBuffer:
    cdef public bytearray buf
    cdef public object mem
    cdef public FlushQueue touched
    cdef public list later
    cdef public Flusher flusher
    cdef public ReplayBuffer behind
    cdef public long long acked, base, sent, frames, sends, resent
    cdef public Py_ssize_t pos, limit
    cdef public bint dirty, deferrable, overrun
    cdef object _pool, _older
    cdef Slab _current
    cdef public long long _bound
    cdef bint _closed

    @cython.locals(need=Py_ssize_t, end="long long")
    cpdef bint room(self, Py_ssize_t wanted) except -1
    @cython.locals(pos=Py_ssize_t)
    cpdef int data(self, unsigned long long word, Py_ssize_t length) except -1
    @cython.locals(pos=Py_ssize_t, length=Py_ssize_t, body=Py_ssize_t)
    cpdef put(self, unsigned long long kind, unsigned long long stream_id, bytes payload=*, bint deferrable=*)
    cpdef int touch(self) except -1
    cpdef Slab unsent_slab(self)
