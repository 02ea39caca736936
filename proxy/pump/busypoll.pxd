cdef int CROWD, ENOUGH
cdef double LOOKING, PAUSE, SHORT, TAKEN

cdef class BusyPoll:
    cdef public double spent
    cdef public bint quota, auto
    cdef public int _short
    cdef public double _not_before, _seconds

    cpdef double until(self, int crowd, double now) except? -1
    cpdef found(self)
    cpdef bint looked(self, double before, double now) except -1
    cpdef waited(self, double seconds)
