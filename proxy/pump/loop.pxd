cimport cython
from proxy.core.syscalls cimport Epoll, now, sched_yield
from proxy.mux.replay cimport Flusher, FlushQueue, ReplayBuffer
from proxy.pump.busypoll cimport BusyPoll
from proxy.pump.descriptor cimport close_owned, fd_of

cdef int FEW_EVENTS, LINGER_DEFERRED, MAX_EVENTS, SEND_FIRST
cdef unsigned int PROBE, QUIET
cdef double LONG_TURN, MAX_BUSY

cdef class Reader:
    cpdef int read(self, Epoll found, int count, list lanes) except -1

cdef class Pump:
    cdef public object budget, slabs, deadlines, descriptors, openings
    cdef public FlushQueue touched
    cdef public list later, lanes
    cdef public int crowd, slow_left, linger
    cdef public long long turns
    cdef public double busy, _began
    cdef public object long_turns
    cdef public BusyPoll busy_poll
    cdef public bint _in_turn
    cdef public Reader _reader
    cdef public list _watchers, _again, _ended, _closing
    cdef public int _most, _send_after
    cdef public unsigned int _looks
    cdef public Epoll _epoll

    @cython.locals(found=Epoll, stop=double, ended=double, probe=bint, most=int, count=int, again=list, left=int)
    cdef _turns(self)
    @cython.locals(index=int)
    cdef _handle(self, Epoll found, int count)
    cdef _look_at(self, list watchers)
    @cython.locals(ended=double, took=double)
    cdef double _end_turn(self) except -1
    @cython.locals(epoll=Epoll, busy_poll=BusyPoll, linger=int, count=int, before=double, after=double, stop=double)
    cdef int _wait(self, int most, double begin) except -1
    @cython.locals(out=ReplayBuffer)
    cpdef settle(self)
    @cython.locals(ended=list, closing=list)
    cdef _settle(self)
    cpdef send_first(self)
    @cython.locals(last=ReplayBuffer, out=ReplayBuffer, flusher=Flusher)
    cdef _flush(self)
    cpdef at_end(self, action)
    cpdef again(self, watcher)
    cpdef watch(self, int fd, watcher, unsigned int mask)
    cpdef hand_on(self, int fd, watcher)
    cpdef interest(self, int fd, unsigned int mask)
    @cython.locals(fd=int)
    cpdef release(self, sock)
    cpdef close(self, sock)
    cdef _forget(self, int fd)
