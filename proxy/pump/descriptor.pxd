cimport cython
from proxy.core.syscalls cimport close

@cython.freelist(64)
cdef class Descriptor:
    cdef public int fd

    cpdef int fileno(self) except? -1
    cpdef close(self)

@cython.locals(own=Descriptor)
cpdef int fd_of(owner) except? -2

@cython.locals(own=Descriptor)
cpdef close_owned(owner)
