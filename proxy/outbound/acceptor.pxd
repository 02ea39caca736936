cimport cython
from proxy.core.syscalls cimport peer_of
from proxy.pool.picking cimport Picker
from proxy.pump.descriptor cimport fd_of
from proxy.pump.edgetally cimport EdgeTally
from proxy.pump.lane cimport Lane
from proxy.pump.link cimport Link
from proxy.pump.openings cimport OpeningWindow
from proxy.pump.session cimport LaneSession
from proxy.pump.streamobserver cimport StreamObserver
from proxy.pump.tally cimport Countdown, Opened, StreamTally, Tally, Totals

cdef long long OURSELVES, UNKNOWN_UID

cdef class UpstreamAcceptor:
    cdef object __weakref__
    cdef public object service, accept
    cdef public object _context, _caller
    cdef public Totals _stats
    cdef public Picker _picker
    cdef public bint _tcp
    cdef public dict _callers
    cdef public KnownCaller _last
    cdef public OpeningWindow _window
    cdef public Countdown _sampler
    cdef public Opened _called
    cdef public Tally _held
    cdef public int _own_pid

    @cython.locals(link=Link, session=LaneSession, caller=KnownCaller, lane=Lane, uid="long long")
    cpdef accepted(self, owner)
    @cython.locals(called=Opened)
    cpdef _count(self)

cdef class KnownCaller(StreamObserver):
    cdef public object service, written
    cdef public long long uid
    cdef public object _context, _request
    cdef public Totals _stats
    cdef public bint _tcp
    cdef public OpeningWindow _window
    cdef public StreamTally _count
    cdef public EdgeTally edge
    cdef public Tally _held
    cdef public dict _blamed

    @cython.locals(opened=Lane)
    cpdef lane_opened(self, lane)
    @cython.locals(count=StreamTally, ended=Lane)
    cpdef lane_ended(self, lane, reason)
