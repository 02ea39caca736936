"""The compiled form of syscalls.py, which says what everything does."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EFAULT, EINTR, errno
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from *:
    """
    #include <stddef.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/un.h>
    #include <unistd.h>

    /* libc's own can be cancelled, which costs more than all the rest of them where there are threads; and Python's own
       sched_yield hands its lock on each time, which is dearer than the call. */
    #define plain_recv(fd, at, size, flags) syscall(SYS_recvfrom, fd, at, size, flags, NULL, NULL)
    #define plain_send(fd, at, size, flags) syscall(SYS_sendto, fd, at, size, flags, NULL, 0)
    #define plain_look(epoll, found, most) syscall(SYS_epoll_pwait, epoll, found, most, 0, NULL, 0)
    #define plain_yield() syscall(SYS_sched_yield)
    static inline unsigned long long load_word(const char *at) {
        unsigned long long word;
        return memcpy(&word, at, sizeof word), __builtin_bswap64(word);
    }
    static inline void store_word(char *at, unsigned long long word) {
        word = __builtin_bswap64(word), memcpy(at, &word, sizeof word);
    }
    static int control(int epoll, int what, int fd, unsigned mask) {
        struct epoll_event event = {.events = mask, .data.fd = fd};
        return epoll_ctl(epoll, what, fd, &event);
    }
    static int unix_connection(const char *path, size_t size) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        int fd, code;
        if (size == 0 || size >= sizeof name.sun_path + (path[0] == 0)) { errno = EFAULT; return -1; }
        memcpy(name.sun_path, path, size);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        size += offsetof(struct sockaddr_un, sun_path) + (path[0] != 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&name, size)) code = errno, close(fd), errno = code, fd = -1;
        return fd;
    }
    static long long user_of(int fd, int own) {
        struct ucred who;
        socklen_t size = sizeof who;
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) ? -2 : who.pid == own ? -1 : (long long)who.uid;
    }
    """
    union epoll_data:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data data
    unsigned long long load_word(const char *at) nogil
    void store_word(char *at, unsigned long long word) nogil
    int control(int epoll, int what, int fd, unsigned int mask) nogil
    int unix_connection(const char *path, size_t size) nogil
    long long user_of(int fd, int own) nogil
    int epoll_create1(int flags) nogil
    int epoll_wait(int epoll, epoll_event *found, int most, int milliseconds) nogil
    int plain_look(int epoll, epoll_event *found, int most) nogil
    int plain_yield() nogil
    Py_ssize_t plain_recv(int fd, void *at, size_t size, int flags) nogil
    Py_ssize_t plain_send(int fd, const void *at, size_t size, int flags) nogil
    int accept4(int fd, void *address, void *size, int flags) nogil
    int c_close "close"(int fd) nogil
    int SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_PEEK, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC

cdef class Epoll:
    def __cinit__(self, int most):
        self._fd, self._most = -1, most
        self._found = PyMem_Malloc(most * sizeof(epoll_event))
        if self._found is NULL:
            raise MemoryError
        self._fd = _checked(epoll_create1(EPOLL_CLOEXEC))

    def __dealloc__(self):
        self.close()
        PyMem_Free(self._found)

    cpdef int fileno(self) noexcept:
        return self._fd

    cpdef int wait(self, int milliseconds, int most) except -1:
        found, most = <epoll_event *>self._found, min(most, self._most)
        if milliseconds == 0:
            count = plain_look(self._fd, found, most)
        else:
            with nogil:
                count = epoll_wait(self._fd, found, most, milliseconds)
        self._count = max(count, 0)
        if count < 0 and errno != EINTR:
            PyErr_SetFromErrno(OSError)
        return count if count >= 0 else PyErr_CheckSignals()

    cpdef int at(self, int index) except? -1:
        if not 0 <= index < self._count:
            raise IndexError(index)
        self.mask = (<epoll_event *>self._found)[index].events
        return (<epoll_event *>self._found)[index].data.fd

    cpdef int put_off(self, int index, int place) except -1:
        if not 0 <= place <= index < self._count:
            raise IndexError(index)
        (<epoll_event *>self._found)[place] = (<epoll_event *>self._found)[index]

    cpdef int add(self, int fd, unsigned int mask) except -1:
        return _checked(control(self._fd, EPOLL_CTL_ADD, fd, mask))

    cpdef int modify(self, int fd, unsigned int mask) except -1:
        return _checked(control(self._fd, EPOLL_CTL_MOD, fd, mask))

    cpdef int remove(self, int fd) except -1:
        return _checked(control(self._fd, EPOLL_CTL_DEL, fd, 0))

    cpdef void close(self) noexcept:
        if self._fd >= 0:
            c_close(self._fd)
            self._fd = -1

cdef int _checked(int result) except -1:
    if result < 0:
        PyErr_SetFromErrno(OSError)
    return result

cdef Py_ssize_t _result(Py_ssize_t result) noexcept:
    return result if result >= 0 else -errno

cdef bint _within(bytearray buf, Py_ssize_t pos, Py_ssize_t size) noexcept:
    return pos >= 0 and size >= 0 and pos + size <= PyByteArray_GET_SIZE(buf)

cpdef Py_ssize_t recv(int fd, bytearray buf, Py_ssize_t pos, Py_ssize_t size) noexcept:
    if not _within(buf, pos, size):
        return -EFAULT
    return _result(plain_recv(fd, PyByteArray_AS_STRING(buf) + pos, size, 0))

cpdef Py_ssize_t send(int fd, bytearray buf, Py_ssize_t pos, Py_ssize_t size) noexcept:
    if not _within(buf, pos, size):
        return -EFAULT
    return _result(plain_send(fd, PyByteArray_AS_STRING(buf) + pos, size, MSG_NOSIGNAL))

cpdef int peek(int fd) noexcept:
    cdef char there
    return <int>_result(plain_recv(fd, &there, 1, MSG_PEEK))

cpdef int accept(int fd) noexcept:
    return <int>_result(accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))

cpdef int connect_unix(bytes path) noexcept:
    return <int>_result(unix_connection(PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path)))

cpdef int close(int fd) noexcept:
    return <int>_result(c_close(fd))

cpdef long long peer_of(int fd, int own) except? -2:
    user = user_of(fd, own)
    if user == -2:
        PyErr_SetFromErrno(OSError)
    return user

cdef char *_beyond() except NULL:
    raise IndexError("beyond the buffer")

cdef inline char *_place(bytearray buf, Py_ssize_t pos, Py_ssize_t size) except NULL:
    return PyByteArray_AS_STRING(buf) + pos if _within(buf, pos, size) else _beyond()

cpdef unsigned long long word_at(bytearray buf, Py_ssize_t pos) except? 0xFFFFFFFFFFFFFFFF:
    return load_word(_place(buf, pos, 8))

cpdef int put_word(bytearray buf, Py_ssize_t pos, unsigned long long word) except -1:
    store_word(_place(buf, pos, 8), word)

cpdef bytes piece(bytearray buf, Py_ssize_t pos, Py_ssize_t size):
    return PyBytes_FromStringAndSize(_place(buf, pos, size), size)

cpdef int put_bytes(bytearray buf, Py_ssize_t pos, bytes data) except -1:
    memcpy(_place(buf, pos, PyBytes_GET_SIZE(data)), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

cpdef void sched_yield() noexcept:
    plain_yield()

cpdef double now() noexcept:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9
