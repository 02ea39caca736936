cimport cython
from proxy.core.syscalls cimport now, recv, send
from proxy.mux.replay cimport Flusher, ReplayBuffer, Slab
from proxy.pump.loop cimport Pump
from proxy.pump.session cimport LaneSession
from proxy.pump.turn cimport deliver
from proxy.pump.turnshare cimport TurnShare

cdef int EPOLLIN, EPOLLOUT

cdef class Link(Flusher):
    cdef public Pump pump
    cdef public LaneSession session
    cdef public object name, peer, budget, ended, reason, detail, rtt, serial
    cdef public object local_address, remote_address
    cdef public bint dialled, congested
    cdef public long long heard
    cdef public double since, heard_at
    cdef public object _sock, _wire, _mem, _queueing
    cdef public dict _waiting
    cdef public int _fd
    cdef public bytearray _buf
    cdef public Py_ssize_t _filled
    cdef public bint _doomed, _behind
    cdef public TurnShare _share

    cpdef ready(self, unsigned int mask)
    @cython.locals(count=Py_ssize_t)
    cdef _receive(self)
    @cython.locals(count=Py_ssize_t)
    cdef Py_ssize_t _recv(self) except -1
    @cython.locals(out=ReplayBuffer, slab=Slab, size=Py_ssize_t, count=Py_ssize_t)
    cdef Py_ssize_t _send(self) except -1
    @cython.locals(frames=int)
    cdef _handle(self, double at)
    @cython.locals(session=LaneSession, share=TurnShare, buf=bytearray, end=Py_ssize_t, pos=Py_ssize_t, behind=bint)
    cdef _deliver(self, int frames, bint ends=*)
    @cython.locals(out=ReplayBuffer, slab=Slab)
    cpdef flush(self)
    cdef _resume_waiting(self)
    cpdef doom(self, reason, detail=*)
