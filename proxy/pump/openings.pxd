cimport cython

cdef int ALL, LEAST, MOST

cdef class UnderWay:
    cdef public object session
    cdef public int count

cdef class Batch:
    cdef public OpeningWindow window
    cdef public UnderWay where
    cdef public int count
    cdef public bint closed, over

cdef class OpeningWindow:
    cdef public int size, count
    cdef public set doubted
    cdef public Batch _last
    cdef public dict _batches
    cdef public set _asked
    cdef public list _waiting

    @cython.locals(count=int, last=Batch, there=int, way=int)
    cpdef bint is_full(self) except -1
    @cython.locals(batch=Batch)
    cpdef Batch add(self, UnderWay where)
    cpdef Batch _batch(self, UnderWay where)
    cpdef answered(self, call, left)
    cpdef ended(self, call, reason)
    cpdef over(self, Batch batch)
    cpdef adapt(self, bint waited)
    cpdef drop(self, Batch batch, int calls=*)
    @cython.locals(batch=Batch)
    cpdef link_lost(self, session)
