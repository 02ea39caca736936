cimport cython
from proxy.pump.carrier cimport CarriedSession
from proxy.pump.lane cimport Lane

cdef class LaneSession(CarriedSession):
    cdef public object key, instance, awake, knows, reason, detail, opened_in
    cdef public bint dialled, survives, bulk, retiring, peer_leaves, unheard, ended_alone
    cdef public double since, idle_since, lost_at, stalled_since
    cdef public long long resumed, lost_streams, fruitless, retransmits
    cdef public object known_at, _retired_at, _announced_at
    cdef public object _calls, _observer
    cdef public long long _acked_when_lost, _ended_below

    @cython.locals(lane=Lane)
    cpdef _make(self, long long stream_id, int state)
    cpdef on_closed(self, Lane stream)
    cpdef _tell_if_notable(self, Lane lane)
    cpdef on_call(self, Lane stream, call)
    cpdef on_opened(self, Lane stream)
    cpdef on_data(self, Lane stream, bytearray data)
    cpdef on_rst(self, Lane stream, reason)
