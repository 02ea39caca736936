cimport cython
from proxy.core.syscalls cimport now, peer_of
from proxy.pool.picking cimport Picker
from proxy.pump.descriptor cimport fd_of
from proxy.pump.edges cimport Edge
from proxy.pump.lane cimport Lane
from proxy.pump.link cimport Link
from proxy.pump.openings cimport OpeningWindow
from proxy.pump.session cimport LaneSession
from proxy.pump.streamcounts cimport CalledCount, StreamCount, StreamSampler, Tally
from proxy.pump.streamobserver cimport StreamObserver
from proxy.pump.streamstats cimport StreamStats

cdef object UNKNOWN_UID

cdef class UpstreamAcceptor:
    cdef object __weakref__
    cdef public object service, accept
    cdef public object _context, _caller
    cdef public StreamStats _stats
    cdef public Picker _picker
    cdef public bint _tcp
    cdef public dict _callers
    cdef public OpeningWindow _window
    cdef public StreamSampler _sampler
    cdef public CalledCount _called
    cdef public Tally _held
    cdef public int _own_pid

    @cython.locals(link=Link, session=LaneSession, caller=KnownCaller, lane=Lane)
    cpdef accepted(self, owner)
    @cython.locals(called=CalledCount)
    cpdef _count(self)

cdef class KnownCaller(StreamObserver):
    cdef public object service, written
    cdef public object _context, _request
    cdef public StreamStats _stats
    cdef public bint _tcp
    cdef public OpeningWindow _window
    cdef public StreamCount _count
    cdef public Edge edge
    cdef public Tally _held
    cdef public dict _blamed

    cpdef lane_opened(self, lane)
    @cython.locals(count=StreamCount, ended=Lane)
    cpdef lane_ended(self, lane, reason)
