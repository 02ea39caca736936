cimport cython

cdef class OpeningWindow:
    cdef public int size
    cdef public set calls, doubted
    cdef public OpeningWindows _all
    cdef public object _last
    cdef public set _over, _asked
    cdef public list _waiting

    @cython.locals(count=int, under_way=int)
    cpdef bint is_full(self) except -1
    cpdef add(self, call)
    cpdef answered(self, call)
    cpdef ended(self, call, reason)
    cpdef over(self, call)
    cpdef adapt(self, bint waited)
    @cython.locals(under_way=dict, count=int)
    cpdef drop(self, call)

cdef class OpeningWindows:
    cdef public dict under_way, _windows
