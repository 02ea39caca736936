cimport cython
from proxy.core.syscalls cimport Epoll, recv, send, word_at
from proxy.mux.replay cimport ReplayBuffer
from proxy.pump.carrier cimport CarriedSession
from proxy.pump.lane cimport Lane
from proxy.pump.loop cimport Reader

cdef Py_ssize_t HEADER_SIZE, CHUNK, MAX_DATA, SLICE
cdef unsigned int EPOLLIN
cdef unsigned long long ID_MASK, LENGTH_MASK
cdef int KEY_SHIFT, NEAR

cdef class LaneReader(Reader):
    @cython.locals(left=int, index=int, fd=int, lane=Lane, out=ReplayBuffer, length=Py_ssize_t)
    cpdef int read(self, Epoll found, int count, list lanes) except -1

@cython.locals(streams=dict, near=list, key="unsigned long long", grant_below="long long", last=Py_ssize_t, word="unsigned long long", length=Py_ssize_t, body=Py_ssize_t, stop=Py_ssize_t, lane=Lane, taken=Py_ssize_t)
cpdef Py_ssize_t deliver(CarriedSession session, bytearray buf, Py_ssize_t pos, Py_ssize_t end) except -1
