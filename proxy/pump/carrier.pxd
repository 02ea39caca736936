from proxy.mux.session cimport Session
from proxy.pump.loop cimport Pump
from proxy.pump.openings cimport UnderWay
from proxy.pump.turnshare cimport TurnShare

cdef class UsageObserver:
    cdef public long long notable

    cpdef began(self)
    cpdef ended(self)
    cpdef stream_ended(self, lane)

cdef class CarriedSession(Session):
    cdef public Pump pump
    cdef public object name, peer, budget, link, ended
    cdef public UsageObserver usage
    cdef public UnderWay under_way
    cdef public TurnShare turn_share
    cdef public dict waiting
    cdef public int slow_left
    cdef public bint suspended
    cdef public double shortest
    cdef public object _asked
    cdef public bint _patient

    cpdef send_now(self)
    cpdef tell_asked(self, answered=*)
