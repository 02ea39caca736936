cimport cython

cdef int ENOUGH, FEW_SPEAK, WINDOW
cdef double LOOKING, PAUSE, SHORT, TAKEN

cdef class BusyPoll:
    cdef public double spent
    cdef public bint quota, auto, _many
    cdef public int _short, _turns
    cdef public unsigned long long _spoke
    cdef public double _not_before, _seconds

    cpdef double until(self, double now) except? -1
    @cython.locals(bit=cython.ulonglong)
    cpdef turn(self, int fd)
    cpdef found(self)
    cpdef bint looked(self, double before, double now) except -1
    cpdef waited(self, double seconds)
