cimport cython
from proxy.core.syscalls cimport now, peek, piece, recv, send
from proxy.mux.replay cimport ReplayBuffer
from proxy.mux.stream cimport Stream
from proxy.pump.carrier cimport CarriedSession
from proxy.pump.descriptor cimport fd_of
from proxy.pump.loop cimport Pump
from proxy.pump.openings cimport Batch
from proxy.pump.streamobserver cimport StreamObserver

cdef Py_ssize_t HEADER_SIZE, MAX_DATA, CHUNK, EARLY_LIMIT
cdef int EAGAIN, EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR
cdef int _DEAF
cdef int CALLED, CALLED_FIN, CLOSED, FIN_RECEIVED, OPEN
cdef unsigned int MAY_SEND, _TAKES_BYTES
cdef unsigned int _IN_HUP

cdef class Lane(Stream):
    cdef public int fd, _mask, _run
    cdef public ReplayBuffer out
    cdef public CarriedSession session
    cdef public StreamObserver observer
    cdef public Batch batch
    cdef public object _owner
    cdef public bytearray pending
    cdef public bytes early
    cdef public bint eof, _waiting, _hung, _deaf, _tcp
    cdef public double since
    cdef public long long counted_sent, counted_received
    cdef public object stalls, timing

    cpdef join(self, CarriedSession session, long long stream_id, int state, long long credit, long long allow)
    cpdef attach(self, sock, bint tcp, bint watched=*)
    cpdef start_calling(self)
    cpdef start_called(self, bytes preface=*)
    cpdef left(self)
    @cython.locals(batch=Batch)
    cpdef leave_window(self)
    @cython.locals(pump=Pump, fd=int, state=int, early=bytes, pending=bytearray, reading=bint, mask=int)
    cpdef update(self)
    cpdef ready(self, unsigned int mask)
    @cython.locals(there=int)
    cpdef _hung_up(self)
    @cython.locals(length=Py_ssize_t)
    cpdef _read(self, bint gone)
    @cython.locals(run=int, flight="long long", out=ReplayBuffer, length=Py_ssize_t, held_back=bint)
    cpdef _read_bulk(self, bint gone)
    @cython.locals(out=ReplayBuffer, room=Py_ssize_t, body=Py_ssize_t, length=Py_ssize_t)
    cpdef Py_ssize_t _receive(self, Py_ssize_t most, bint gone) except -1
    cpdef _wait(self)
    cpdef leave_plain_flow(self, Py_ssize_t length)
    cpdef on_eof(self)
    cpdef _on_gone(self)
    cpdef on_recv_error(self, int code)
    cpdef on_full(self, bytearray data)
    cpdef Py_ssize_t _send(self, bytearray data) except? -1
    @cython.locals(taken=Py_ssize_t, pending=bytearray)
    cpdef _flush(self)
    cpdef on_opened(self)
    @cython.locals(taken=Py_ssize_t)
    cpdef on_data(self, bytearray data)
    cpdef on_rst(self, reason)
    cpdef _end_writing(self)
    cpdef abort(self, reason)
    cpdef drop(self, reason)
    @cython.locals(session=CarriedSession, observer=StreamObserver)
    cpdef _close(self, reason)
