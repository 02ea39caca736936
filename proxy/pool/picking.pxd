cimport cython
from proxy.pool.usage cimport PoolUsage
from proxy.pump.link cimport Link
from proxy.pump.session cimport LaneSession

cdef int CROWDED

cdef class Picker:
    cdef public list links
    cdef public Link opened_ahead
    cdef public PoolUsage _usage
    cdef public object _bulk, _pacer, _ask, _look_soon
    cdef public Link _at_hand

    @cython.locals(usage=PoolUsage, link=Link)
    cpdef Link pick(self, service=*)
    @cython.locals(link=Link, session=LaneSession)
    cpdef Link handy(self, service)
