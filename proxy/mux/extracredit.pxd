cimport cython
from proxy.mux.stream cimport Stream

cdef class ExtraCredit:
    cdef public long long larger
    cdef public int most
    cdef public set extended
    cdef long long _credit

    @cython.locals(had="long long", used="long long", elapsed=double)
    cpdef long long credit(self, Stream stream, long long buffered, double now) except -1
    cpdef end(self, Stream stream)
