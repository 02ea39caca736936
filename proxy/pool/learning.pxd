from proxy.pool.uses cimport Uses
from proxy.pump.carrier cimport UsageObserver

cdef class UsageLearner(UsageObserver):
    cdef public Uses _usage
    cdef public object _peer, _bulk, _recorder, _waiting, _stream_ended

    cpdef began(self)
    cpdef ended(self)
