cdef class StreamObserver:
    cpdef lane_opened(self, lane)
    cpdef lane_refused(self, lane, reason)
    cpdef lane_unheard(self, lane)
    cpdef lane_ended(self, lane, reason)
