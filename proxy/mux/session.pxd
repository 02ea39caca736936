cimport cython
from proxy.core.syscalls cimport piece, word_at
from proxy.mux.extracredit cimport ExtraCredit
from proxy.mux.replay cimport ReplayBuffer
from proxy.mux.sink cimport SessionSink
from proxy.mux.stream cimport Stream

ctypedef unsigned long long u64

cdef u64 DATA, DATA_FIN, CREDIT, ACK, OPEN, OPENED, REFUSE, RST, PING, PONG, GOAWAY
cdef u64 LENGTH_MASK, ID_MASK
cdef int KEY_SHIFT, KIND_SHIFT, MOST_HOLES, NEAR
cdef Py_ssize_t HEADER_SIZE, MAX_DATA, MAX_CONTROL
cdef long long ACK_EVERY
cdef int CALLED, CALLING, CLOSED
cdef int RECV_DATA, RECV_FIN, RECV_OPENED, RECV_REFUSE, RECV_RST, SEND_FIN, SEND_OPENED, SEND_REFUSE, SEND_RST
cdef unsigned int MAY_RECEIVE, MAY_SEND
cdef dict KNOWN_OPENS, REASON_BYTES, REASONS

cdef _reason(bytes payload, str kind)

cdef class Session(SessionSink):
    cdef public ReplayBuffer out
    cdef public ExtraCredit extra_credit
    cdef public object local, remote
    cdef public dict streams, lingering
    cdef public list near
    cdef public long long received, grant_below
    cdef public int open_quota
    cdef public bint reading_stopped
    cdef public long long _first_id, _next_id, _max_id, _newest
    cdef public int _own, _called, _holes
    cdef Py_ssize_t _most_called, _most_lingering
    cdef public bint _going_away, _around
    cdef public long long _acked, _known, _credit, _allow

    @cython.final
    cdef bint _clear(self) except -1
    @cython.locals(stream_id="long long", stream=Stream)
    cpdef open(self, bytes call)
    @cython.final
    @cython.locals(stream=Stream)
    cdef Stream _add(self, long long stream_id, int state)
    cpdef Stream _make(self, long long stream_id, int state)
    cpdef accept(self, Stream stream)
    cpdef refuse(self, Stream stream, reason)
    @cython.locals(wanted="long long")
    cpdef Py_ssize_t sendable(self, Stream stream, Py_ssize_t most=*) except -1
    cpdef int sent(self, Stream stream, Py_ssize_t length) except -1
    cpdef fin(self, Stream stream)
    cpdef reset(self, Stream stream, reason)
    @cython.locals(grant="long long")
    cpdef consumed(self, Stream stream, long long buffered, double now)
    cpdef acknowledge(self)
    @cython.locals(word=u64, length=Py_ssize_t)
    cpdef bint whole(self, bytearray buf, Py_ssize_t pos, Py_ssize_t end) except -1
    @cython.final
    cdef Py_ssize_t _largest(self, u64 kind) except? -1
    @cython.locals(kind=u64, stream_id="long long")
    cpdef handle(self, u64 word, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    cpdef received_bytes(self, Py_ssize_t count)
    @cython.final
    @cython.locals(stream=Stream)
    cdef Stream _live(self, long long stream_id, str kind)
    @cython.final
    @cython.locals(stream=Stream, length=Py_ssize_t)
    cdef _on_data(self, long long stream_id, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(stream=Stream)
    cdef _on_fin(self, long long stream_id, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(again=bint, payload=bytes, stream=Stream)
    cdef _on_open(self, long long stream_id, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(stream=Stream)
    cdef _on_opened(self, long long stream_id)
    @cython.final
    @cython.locals(stream=Stream)
    cdef _on_refuse(self, long long stream_id, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(stream=Stream)
    cdef _on_rst(self, long long stream_id, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(stream=Stream, grant="long long")
    cdef _on_credit(self, long long stream_id, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(due="long long", free=list)
    cdef _on_ack(self, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    cdef _on_ping(self, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    cdef _on_goaway(self, bytearray buf, Py_ssize_t body, Py_ssize_t stop)
    @cython.final
    @cython.locals(end="long long")
    cdef _forget(self, Stream stream, bint late_frames=*)
