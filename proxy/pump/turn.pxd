cimport cython
from proxy.core.syscalls cimport Epoll, recv, send, word_at
from proxy.mux.replay cimport ReplayBuffer
from proxy.mux.session cimport Session
from proxy.pump.lane cimport Lane

cdef Py_ssize_t HEADER_SIZE, CHUNK, MAX_DATA, SLICE
cdef unsigned int EPOLLIN
cdef unsigned long long ID_MASK, LENGTH_MASK
cdef int KEY_SHIFT, NEAR

@cython.locals(index=int, fd=int, lane=Lane, out=ReplayBuffer, length=Py_ssize_t)
cpdef collect(Epoll found, int count, list lanes, list rest)

@cython.locals(streams=dict, near=list, key="unsigned long long", grant_below="long long", last=Py_ssize_t, word="unsigned long long", length=Py_ssize_t, body=Py_ssize_t, stop=Py_ssize_t, lane=Lane, taken=Py_ssize_t)
cpdef tuple deliver(Session session, bytearray buf, Py_ssize_t pos, Py_ssize_t end, Py_ssize_t most)
