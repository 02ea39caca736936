cimport cython
from proxy.pool.uses cimport Uses
from proxy.pump.link cimport Link
from proxy.pump.session cimport LaneSession

cdef int CROWDED

cdef class Picker:
    cdef public list links
    cdef public Link opened_ahead
    cdef public Uses _usage
    cdef public object _bulk, _pacer, _ask, _look_soon
    cdef public Link _at_hand

    @cython.locals(usage=Uses, link=Link)
    cpdef Link pick(self, service=*)
    @cython.locals(link=Link, session=LaneSession, counted=set)
    cpdef Link handy(self, service)
