cdef class GapCounter:
    cdef public double idle_since
    cdef public long long countable

    cpdef begin(self, double now)
    cpdef end(self, double now)
    cpdef gap(self, double now)

cdef class Uses:
    cdef public GapCounter history
    cdef public long long busy, avoided, warm
    cdef public set counted

    cpdef began(self, double now)
    cpdef ended(self, double now)
