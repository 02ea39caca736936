cimport cython
from proxy.core.syscalls cimport connect_unix
from proxy.pump.descriptor cimport owner_of
from proxy.pump.edgetally cimport EdgeTally
from proxy.pump.lane cimport Lane
from proxy.pump.session cimport CallHandler
from proxy.pump.streamobserver cimport StreamObserver
from proxy.pump.tally cimport Countdown, Opened, StreamTally, Tally, Totals

cdef class AtOnce(CallHandler):
    cdef public Totals stats
    cdef public object allowed, connector, open
    cdef public object _descriptors, _budget
    cdef public dict _local_services

    @cython.locals(local=LocalService, caller=KnownCaller, fd=int)
    cpdef call(self, Lane lane, call)

cdef class LocalService:
    cdef object __weakref__
    cdef public AtOnce _inbound
    cdef public Countdown _sampler
    cdef public object service, config
    cdef public bytes path, at_once
    cdef public bint guarded, tells
    cdef public Opened delivered
    cdef public Tally open
    cdef public dict _callers
    cdef public int _kept

    @cython.locals(delivered=Opened)
    cpdef took(self, Lane lane)
    cpdef time(self, Lane lane)
    @cython.locals(of_peer=dict, caller=KnownCaller)
    cpdef KnownCaller caller(self, peer, call)

cdef class KnownCaller(StreamObserver):
    cdef public object service, _call
    cdef public AtOnce _inbound
    cdef public StreamTally _count
    cdef public Tally _open
    cdef public EdgeTally edge

    @cython.locals(inbound=AtOnce, count=StreamTally, ended=Lane)
    cpdef lane_ended(self, lane, reason)
