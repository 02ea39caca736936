cimport cython
from proxy.core.syscalls cimport now
from proxy.mux.stream cimport Stream
from proxy.pump.carrier cimport CarriedSession
from proxy.pump.lane cimport Lane

cdef class CallHandler:
    cpdef call(self, Lane lane, call)

cdef class LaneSession(CarriedSession):
    cdef public object key, instance, awake, knows, reason, detail
    cdef public bint dialled, survives, bulk, retiring, peer_leaves, unheard, ended_alone
    cdef public double opened_in, since, idle_since, lost_at, stalled_since
    cdef public long long resumed, lost_streams, fruitless, retransmits
    cdef public object known_at, _retired_at, _announced_at
    cdef public object _stream_type, _observer
    cdef public CallHandler _calls
    cdef public long long _acked_when_lost, _ended_below

    @cython.locals(lane=Lane)
    cpdef Stream _make(self, long long stream_id, int state)
    cdef _tell_if_notable(self, Lane lane)
    cpdef on_closed(self, Stream stream)
    cpdef on_call(self, Stream stream, call)
    @cython.locals(lane=Lane)
    cpdef on_opened(self, Stream stream)
    cpdef on_refused(self, Stream stream, reason)
    @cython.locals(lane=Lane)
    cpdef on_data(self, Stream stream, bytearray data)
    cpdef on_fin(self, Stream stream)
    @cython.locals(lane=Lane)
    cpdef on_rst(self, Stream stream, reason)
    cpdef on_credit(self, Stream stream)
    cpdef on_pong(self, token)
    cpdef on_goaway(self, reason)
