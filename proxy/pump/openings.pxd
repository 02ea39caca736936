cimport cython

cdef class UnderWay:
    cdef public object session
    cdef public int count

cdef class OpeningWindow:
    cdef public int size
    cdef public dict calls
    cdef public set doubted
    cdef public UnderWay _last
    cdef public set _over, _asked
    cdef public list _waiting

    @cython.locals(count=int, last=UnderWay, way=int)
    cpdef bint is_full(self) except -1
    cpdef add(self, call, UnderWay where)
    cpdef answered(self, call)
    cpdef ended(self, call, reason)
    cpdef over(self, call)
    cpdef adapt(self, bint waited)
    @cython.locals(where=UnderWay)
    cpdef drop(self, call)
