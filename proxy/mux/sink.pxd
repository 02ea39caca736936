from proxy.mux.stream cimport Stream

cdef class SessionSink:
    cpdef on_call(self, Stream stream, call)
    cpdef on_opened(self, Stream stream)
    cpdef on_refused(self, Stream stream, reason)
    cpdef on_data(self, Stream stream, bytearray data)
    cpdef on_fin(self, Stream stream)
    cpdef on_rst(self, Stream stream, reason)
    cpdef on_credit(self, Stream stream)
    cpdef on_pong(self, token)
    cpdef on_goaway(self, reason)
    cpdef on_closed(self, Stream stream)
