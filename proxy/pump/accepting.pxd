cimport cython
from proxy.core.syscalls cimport accept, now
from proxy.pump.descriptor cimport owner_of
from proxy.pump.loop cimport Pump
from proxy.pump.openings cimport OpeningWindow

cdef class Accepting:
    cdef public Pump _pump
    cdef public OpeningWindow window
    cdef public object accepted
    cdef public int _fd, _failed
    cdef public bint _said
    cdef public double _short_at

    @cython.locals(pump=Pump, window=OpeningWindow, bound="long long", scarce=int, fd=int)
    cpdef ready(self, unsigned int mask)
    cpdef int _accept(self) except? -1
