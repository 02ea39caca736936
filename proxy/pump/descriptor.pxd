cimport cython
from proxy.core.syscalls cimport close

cdef class Descriptor:
    cdef public int fd

    cpdef int fileno(self) except? -1
    cpdef close(self)

@cython.locals(new=Descriptor)
cpdef owner_of(int fd, long long bound)

@cython.locals(own=Descriptor)
cpdef int fd_of(owner) except? -2

@cython.locals(own=Descriptor)
cpdef close_owned(owner)
