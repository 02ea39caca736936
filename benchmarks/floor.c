/* The least that a pair of multiplexing proxies could cost: Hostlane's shape as a bare epoll loop in C. What lies between
 * it and Hostlane is the price of everything else: credit, replay, routing, limits, statistics, and of the language.
 *
 * usage: floor --entry unix:/path --link tcp:IP:PORT       takes callers, dials the link
 *        floor --deliver unix:/path --link tcp:IP:PORT     takes the link, connects each stream to the service
 *
 * Both ends turn the same loop. A turn looks at up to EVENTS descriptors. What a local socket has goes straight behind
 * its frame's header in the out-buffer; whole frames of the link go straight from the in-buffer to the local sockets; one
 * send at the end of the turn takes everything that is due. A new stream costs no round trip: OPEN and its first bytes
 * travel together. OPENED alone is no reason to send: it waits up to LINGER for company.
 *
 * There is no credit, so it carries messages and no bulk: an end that takes less than it is sent stops it with one line.
 * An end of stream ends both directions. It ends with its link.
 *
 * A frame: stream id (32 bits), payload length (24), kind (8), little-endian; then the payload. */
#include "wire.h"

#include <sys/epoll.h>

#define EVENTS 48
#define FRAMES 16                 /* handled of one recv before the local sockets have their turn */
#define ACCEPTS 16                /* taken in one turn */
#define LINGER 1                  /* milliseconds */
#define PIECE 16384               /* read from a local socket at a time */
#define HEADER 8
#define IN_SIZE (1 << 17)
#define OUT_SIZE (1 << 23)
#define STREAMS (1 << 16)         /* open at a time; a power of two */
#define DIAL_TRIES 400            /* every 25 ms, until the other end listens */

enum kind { DATA, OPEN, OPENED, END };

struct lane {
    int fd;
    int over;                     /* ended in this turn; events for it may still come in the same look */
    uint32_t id;
};

static struct lane lanes[STREAMS], *by_id[STREAMS], *unused[STREAMS], *ended[STREAMS];
static unsigned unused_count, ended_count;
static uint8_t in[IN_SIZE], out[OUT_SIZE];
static size_t in_end, out_sent, out_end;
static int epoll_fd, link_fd, listen_fd = -1;
static int congested;             /* the link takes no more; asked to be told when it does */
static int urgent;                /* something else than OPENED is due */
static uint32_t next_id = 1;
static struct address service;
static const char call[] = "bench, 1000";         /* as long as a call of the benchmark is in Hostlane's OPEN */

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, errno ? strerror(errno) : "it carries messages only");
    exit(1);
}

static void watch(int op, int fd, uint32_t events, void *data) {
    struct epoll_event e = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll_fd, op, fd, &e)) die("epoll_ctl");
}

/* The out-buffer */

static void put_header(enum kind kind, uint32_t id, uint32_t length) {
    uint32_t word = length | (uint32_t)kind << 24;
    memcpy(out + out_end, &id, 4);
    memcpy(out + out_end + 4, &word, 4);
    out_end += HEADER + length;
    if (kind != OPENED) urgent = 1;
}

static void need_room(void) {
    errno = 0;
    if (OUT_SIZE - out_end < 2 * (HEADER + PIECE)) die("the out-buffer is full");
}

static void flush(void) {
    urgent = 0;
    while (out_sent < out_end && !congested) {
        ssize_t n = send(link_fd, out + out_sent, out_end - out_sent, MSG_NOSIGNAL);
        if (n >= 0) out_sent += (size_t)n;
        else if (errno != EAGAIN) exit(0);               /* the other end has gone */
        else {
            congested = 1;
            watch(EPOLL_CTL_MOD, link_fd, EPOLLIN | EPOLLOUT, &link_fd);
        }
    }
    if (out_sent == out_end) out_sent = out_end = 0;
}

/* Streams */

static struct lane *find(uint32_t id) {
    struct lane *l = by_id[id % STREAMS];
    return l && l->id == id ? l : NULL;
}

static struct lane *begin(int fd, uint32_t id) {
    struct lane *l = unused[--unused_count];
    *l = (struct lane){.fd = fd, .id = id};
    by_id[id % STREAMS] = l;
    watch(EPOLL_CTL_ADD, fd, EPOLLIN, l);
    return l;
}

static void end(struct lane *l) {
    by_id[l->id % STREAMS] = NULL;
    l->over = 1;
    ended[ended_count++] = l;
}

/* Close what has ended in this turn; until now nobody could get its descriptor. */
static void bury(void) {
    while (ended_count) {
        struct lane *l = ended[--ended_count];
        close(l->fd);
        unused[unused_count++] = l;
    }
}

static void read_local(struct lane *l) {
    need_room();
    ssize_t n = recv(l->fd, out + out_end + HEADER, PIECE, 0);
    if (n > 0) put_header(DATA, l->id, (uint32_t)n);
    else if (n == 0 || errno != EAGAIN) {
        put_header(END, l->id, 0);
        end(l);
    }
}

static void accept_callers(void) {
    for (int i = 0; i < ACCEPTS && unused_count; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct ucred who;
        socklen_t size = sizeof who;
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size);    /* a proxy has to ask */
        while (by_id[next_id % STREAMS]) next_id++;
        struct lane *l = begin(fd, next_id++);
        need_room();
        memcpy(out + out_end + HEADER, call, sizeof call);
        put_header(OPEN, l->id, sizeof call);
        read_local(l);
    }
}

static void deliver(uint32_t id) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    need_room();
    if (fd >= 0 && unused_count && !by_id[id % STREAMS] && !connect(fd, &service.to.any, service.length)) {
        begin(fd, id);
        put_header(OPENED, id, 0);
        return;
    }
    close(fd);
    put_header(END, id, 0);
}

static void handle(enum kind kind, uint32_t id, const uint8_t *payload, uint32_t length) {
    if (kind == OPEN) {
        deliver(id);
        return;
    }
    struct lane *l = find(id);                            /* none: it ended here a moment ago */
    if (!l) return;
    if (kind == END) end(l);
    else if (kind == DATA) {
        ssize_t n = send(l->fd, payload, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return;             /* its end will be read */
        errno = 0;
        if (n != (ssize_t)length) die("a local socket is full");
    }
}

/* Up to FRAMES whole frames; returns whether there are more. */
static int handle_frames(void) {
    size_t at = 0;
    int left = FRAMES;
    while (left && in_end - at >= HEADER) {
        uint32_t id, word;
        memcpy(&id, in + at, 4);
        memcpy(&word, in + at + 4, 4);
        uint32_t length = word & 0xFFFFFF;
        errno = 0;
        if (length > PIECE || word >> 24 > END) die("no frame of ours");
        if (in_end - at - HEADER < length) break;
        handle(word >> 24, id, in + at + HEADER, length);
        at += HEADER + length;
        left--;
    }
    memmove(in, in + at, in_end - at);
    in_end -= at;
    return !left;
}

static int read_link(uint32_t events) {
    if (events & EPOLLOUT && congested) {
        congested = 0;
        watch(EPOLL_CTL_MOD, link_fd, EPOLLIN, &link_fd);
        flush();
    }
    if (!(events & ~(uint32_t)EPOLLOUT)) return 0;
    ssize_t n = recv(link_fd, in + in_end, IN_SIZE - in_end, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) exit(0);
    if (n > 0) in_end += (size_t)n;
    return handle_frames();
}

static int look(struct epoll_event *events, int more) {
    if (more) return epoll_wait(epoll_fd, events, EVENTS, 0);
    if (out_end == out_sent || congested) return epoll_wait(epoll_fd, events, EVENTS, -1);
    int n = epoll_wait(epoll_fd, events, EVENTS, LINGER);
    if (!n) flush();                                      /* no company came */
    return n;
}

static void serve(void) {
    struct epoll_event events[EVENTS];
    for (int more = 0;;) {
        int n = look(events, more), unread = more;
        more = 0;
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            if (what == &link_fd) {
                if (!unread) more = read_link(events[i].events);
            } else if (what == &listen_fd) accept_callers();
            else if (!((struct lane *)what)->over) read_local(what);
        }
        if (unread) more = handle_frames();
        if (urgent) flush();
        bury();
    }
}

/* Setting up */

static int listen_at(const struct address *a) {
    int one = 1, fd = socket(a->to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (a->to.any.sa_family == AF_UNIX) unlink(a->to.un.sun_path);
    else setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, &a->to.any, a->length) || listen(fd, 16384)) die("listen");
    return fd;
}

static int dial(const struct address *a) {
    for (int tries = 0; tries < DIAL_TRIES; tries++) {
        int fd = socket(a->to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (!connect(fd, &a->to.any, a->length)) return fd;
        close(fd);
        nanosleep(&(struct timespec){0, 25000000}, NULL);
    }
    die("connect");
    return -1;
}

static void no_blocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

int main(int argc, char **argv) {
    process_setup();
    int calls = argc == 5 && !strcmp(argv[1], "--entry");
    if (argc != 5 || strcmp(argv[3], "--link") || (!calls && strcmp(argv[1], "--deliver"))) {
        fprintf(stderr, "usage: floor --entry|--deliver unix:/path --link tcp:IP:PORT\n");
        return 2;
    }
    struct address local = address_parse(argv[2]), between = address_parse(argv[4]);
    for (unsigned i = 0; i < STREAMS; i++) unused[unused_count++] = &lanes[i];
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (calls) {
        link_fd = dial(&between);
        listen_fd = listen_at(&local);
        no_blocking(listen_fd);
        watch(EPOLL_CTL_ADD, listen_fd, EPOLLIN, &listen_fd);
    } else {
        service = local;
        int at = listen_at(&between);
        link_fd = accept4(at, NULL, NULL, SOCK_CLOEXEC);
        close(at);
        if (link_fd < 0) die("accept");
    }
    tcp_nodelay(link_fd, &between);
    no_blocking(link_fd);
    watch(EPOLL_CTL_ADD, link_fd, EPOLLIN, &link_fd);
    serve();
    return 0;
}
