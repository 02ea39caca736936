cimport cython

@cython.final
cdef class Epoll:
    cdef int _fd, _most, _count
    cdef void *_found
    cdef public unsigned int mask
    cpdef int fileno(self) noexcept
    cpdef int wait(self, int milliseconds, int most) except -1
    cpdef int at(self, int index) except? -1
    cpdef int put_off(self, int index, int place) except -1
    cpdef int add(self, int fd, unsigned int mask) except -1
    cpdef int modify(self, int fd, unsigned int mask) except -1
    cpdef int remove(self, int fd) except -1
    cpdef void close(self) noexcept

cpdef Py_ssize_t recv(int fd, bytearray buf, Py_ssize_t pos, Py_ssize_t size) noexcept
cpdef Py_ssize_t send(int fd, bytearray buf, Py_ssize_t pos, Py_ssize_t size) noexcept
cpdef int peek(int fd) noexcept
cpdef int accept(int fd) noexcept
cpdef int connect_unix(bytes path) noexcept
cpdef int close(int fd) noexcept
cpdef long long peer_of(int fd, int own) except? -2
cpdef unsigned long long word_at(bytearray buf, Py_ssize_t pos) except? 0xFFFFFFFFFFFFFFFF
cpdef int put_word(bytearray buf, Py_ssize_t pos, unsigned long long word) except -1
cpdef bytes piece(bytearray buf, Py_ssize_t pos, Py_ssize_t size)
cpdef int put_bytes(bytearray buf, Py_ssize_t pos, bytes data) except -1
cpdef void sched_yield() noexcept
cpdef double now() noexcept
