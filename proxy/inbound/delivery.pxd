cimport cython
from proxy.core.syscalls cimport now
from proxy.pump.edges cimport Edge
from proxy.pump.lane cimport Lane
from proxy.pump.session cimport LaneSession
from proxy.pump.streamcounts cimport DeliveredCount, StreamCount, StreamSampler, Tally
from proxy.pump.streamobserver cimport StreamObserver
from proxy.pump.streamstats cimport StreamStats

cdef class Inbound:
    cdef public StreamStats stats
    cdef public object allowed, connector, open
    cdef public object _notice, _streams, _descriptors
    cdef public dict _local_services, _opens

    @cython.locals(session=LaneSession, local=LocalService, caller=KnownCaller)
    cpdef call(self, Lane lane, call)

cdef class LocalService:
    cdef object __weakref__
    cdef public Inbound _inbound
    cdef public StreamSampler _sampler
    cdef public object service, config
    cdef public bytes path, at_once
    cdef public bint tells
    cdef public DeliveredCount delivered
    cdef public Tally open
    cdef public dict _callers

    @cython.locals(delivered=DeliveredCount)
    cpdef took(self, Lane lane)
    cpdef time(self, Lane lane)
    @cython.locals(caller=KnownCaller)
    cpdef KnownCaller caller(self, peer, call)

cdef class KnownCaller(StreamObserver):
    cdef public object service, _call
    cdef public Inbound _inbound
    cdef public StreamCount _count
    cdef public Tally _open
    cdef public Edge edge

    @cython.locals(inbound=Inbound, count=StreamCount, ended=Lane)
    cpdef lane_ended(self, lane, reason)
