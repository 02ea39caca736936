cimport cython
from proxy.core.syscalls cimport accept
from proxy.pump.descriptor cimport Descriptor
from proxy.pump.loop cimport Pump
from proxy.pump.openings cimport OpeningWindow

cdef class Listener:
    cdef public Pump _pump
    cdef public object _deadlines, _sock, _listen, accepted, held, _why, _short_at
    cdef public int _fd, _failed
    cdef public OpeningWindow window
    cdef public bint _watching, _said
    cdef public set _reasons
    cdef public long long _uncounted

    @cython.locals(pump=Pump, window=OpeningWindow, new=Descriptor, bound="long long", scarce=int, fd=int)
    cpdef ready(self, unsigned int mask)
    cpdef int _accept(self) except? -1
