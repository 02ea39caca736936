cimport cython

cdef class GapHistogram:
    cdef public list _weights
    cdef public double _unit, _growth, faded, total
    cdef public UseHistory run

cdef class UseHistory:
    cdef public GapHistogram _shared, _own
    cdef public double _evidence
    cdef public object _idle_since, began, periods
    cdef public long long _learnt, _run

    cpdef begin(self, double now)
    cpdef end(self, double now)
    cpdef _learn(self, int position)
    @cython.locals(times="long long", own=GapHistogram, all_peers=GapHistogram, short=double, count=double, all_short=double, all_count=double, evidence=double, shared=double, ours=double)
    cpdef learn_run(self)
