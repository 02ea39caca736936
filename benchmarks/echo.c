/* The server of the benchmark: one thread, epoll. Each connection says in its first word what it wants (wire.h):
 *   echo        every byte comes back (persistent and connect-per-request alike; closes when the client does)
 *   sink        verifies the stream and reports every ACK_EVERY bytes how many it has verified, in 8 bytes
 *   source      sends the stream at full speed until the connection ends
 *   sink_stall  reads STALL_AFTER bytes, then nothing for the milliseconds asked for, then aborts
 *
 * usage: echo [--seconds N] [--corrupt N] --listen ADDRESS [--listen ADDRESS ...]
 *   --seconds N   end after N seconds (default 3600): nothing runs for ever
 *   --corrupt N   flip a bit in every Nth block echoed or sent, to prove that the client notices
 * Prints "ready" when it listens. */
#include "wire.h"

#include <sys/epoll.h>

struct conn {
    int fd;
    int known;              /* the head is complete */
    int want_write, reading;
    enum mode mode;
    uint64_t id, pos;       /* pos: bytes of the stream verified or sent */
    uint64_t acked;
    uint8_t head[HEAD_BYTES];
    size_t head_got;
    uint8_t *pending;       /* echo and reports that the socket would not take */
    size_t pending_at, pending_n;
    uint64_t stall_until;
    struct conn *next_stalled;
    const struct address *from;
};

static int epoll_fd;
static uint8_t in[CHUNK], out[CHUNK + 16];
static struct conn *stalled;
static unsigned long corrupt_every, blocks;

static void interest(struct conn *c) {
    struct epoll_event e = {.data.ptr = c};
    if (c->reading) e.events |= EPOLLIN;
    if (c->want_write) e.events |= EPOLLOUT;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void unstall(struct conn *c) {
    for (struct conn **p = &stalled; *p; p = &(*p)->next_stalled)
        if (*p == c) {
            *p = c->next_stalled;
            return;
        }
}

static void finish(struct conn *c) {
    if (c->stall_until) unstall(c);
    close(c->fd);
    free(c->pending);
    free(c);
}

static void maybe_corrupt(uint8_t *p, size_t n) {
    if (corrupt_every && n && ++blocks % corrupt_every == 0) p[n / 2] ^= 0x10;
}

/* Sends p or keeps what the socket does not take; reading stops until that is gone. 0, or -1 when the connection broke. */
static int put(struct conn *c, const uint8_t *p, size_t n) {
    ssize_t sent = c->pending_n ? 0 : send(c->fd, p, n, 0);
    if (sent < 0 && errno != EAGAIN) return -1;
    if (sent < 0) sent = 0;
    if ((size_t)sent == n) return 0;
    size_t rest = n - (size_t)sent;
    uint8_t *more = malloc(c->pending_n + rest);
    if (!more) return -1;
    if (c->pending_n) memcpy(more, c->pending + c->pending_at, c->pending_n);
    memcpy(more + c->pending_n, p + sent, rest);
    free(c->pending);
    c->pending = more;
    c->pending_at = 0;
    c->pending_n += rest;
    c->want_write = 1;
    c->reading = 0;
    interest(c);
    return 0;
}

static int flush(struct conn *c) {
    ssize_t sent = send(c->fd, c->pending + c->pending_at, c->pending_n, 0);
    if (sent < 0) return errno == EAGAIN ? 0 : -1;
    c->pending_at += (size_t)sent;
    c->pending_n -= (size_t)sent;
    if (c->pending_n) return 0;
    free(c->pending);
    c->pending = NULL;
    c->want_write = 0;
    c->reading = 1;
    interest(c);
    return 0;
}

static int pour(struct conn *c) {
    uint8_t *p = stream_fill(out, c->id, c->pos, CHUNK);
    maybe_corrupt(p, CHUNK);
    ssize_t sent = send(c->fd, p, CHUNK, 0);
    if (sent < 0) return errno == EAGAIN ? 0 : -1;
    c->pos += (uint64_t)sent;
    return 0;
}

static int sink(struct conn *c, const uint8_t *p, size_t n) {
    uint64_t report = ACK_CORRUPT;
    if (stream_check(c->id, c->pos, p, n) < n) {
        put(c, (uint8_t *)&report, 8);
        return -1;
    }
    c->pos += n;
    if (c->pos - c->acked < ACK_EVERY) return 0;
    report = c->acked = c->pos;
    return put(c, (uint8_t *)&report, 8);
}

static void stall(struct conn *c) {
    c->reading = 0;
    c->next_stalled = stalled;
    stalled = c;
    interest(c);
}

/* The bytes that came, by mode. 0, or -1 when the connection is to end. */
static int take(struct conn *c, uint8_t *p, size_t n) {
    switch (c->mode) {
    case MODE_ECHO:
        maybe_corrupt(p, n);
        return put(c, p, n);
    case MODE_SINK:
        return sink(c, p, n);
    case MODE_SINK_STALL:
        c->pos += n;
        if (c->pos >= STALL_AFTER) stall(c);
        return 0;
    default:
        return 0;
    }
}

static int begin(struct conn *c) {
    uint64_t word, parameter;
    memcpy(&word, c->head, 8);
    memcpy(&parameter, c->head + 8, 8);
    if (head_magic(word) != MAGIC) return -1;
    c->known = 1;
    c->mode = head_mode(word);
    c->id = head_id(word);
    if (c->mode == MODE_SINK_STALL) c->stall_until = now_ns() + parameter * 1000000ull;
    if (c->mode == MODE_SOURCE) {
        c->want_write = 1;
        interest(c);
    }
    return c->mode == MODE_ECHO ? take(c, c->head, HEAD_BYTES) : 0;
}

static int receive(struct conn *c) {
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    if (n == 0) return -1;
    size_t at = 0;
    if (!c->known) {
        if (c->head_got == 0 && n >= HEAD_BYTES && head_mode(*(uint64_t *)in) == MODE_ECHO) {
            memcpy(c->head, in, HEAD_BYTES);     /* the usual case: one message, one send */
            c->known = 1;
            c->mode = head_magic(*(uint64_t *)in) == MAGIC ? MODE_ECHO : 0;
            return c->mode ? take(c, in, (size_t)n) : -1;
        }
        size_t need = HEAD_BYTES - c->head_got;
        at = (size_t)n < need ? (size_t)n : need;
        memcpy(c->head + c->head_got, in, at);
        c->head_got += at;
        if (c->head_got < HEAD_BYTES) return 0;
        if (begin(c)) return -1;
    }
    return at < (size_t)n ? take(c, in + at, (size_t)n - at) : 0;
}

static void handle(struct conn *c, uint32_t events) {
    int gone = events & (EPOLLHUP | EPOLLERR) && !c->reading;
    if (!gone && events & ~EPOLLOUT) gone = receive(c);
    if (!gone && events & EPOLLOUT && c->want_write) gone = c->mode == MODE_SOURCE ? pour(c) : flush(c);
    if (gone) finish(c);
}

static void welcome(int listener, const struct address *from) {
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct conn *c = calloc(1, sizeof *c);
        if (!c) {
            close(fd);
            return;
        }
        tcp_nodelay(fd, from);
        c->fd = fd;
        c->from = from;
        c->reading = 1;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void end_stalls(void) {
    uint64_t now = now_ns();
    for (struct conn *c = stalled, *next; c; c = next) {
        next = c->next_stalled;
        if (now < c->stall_until) continue;
        unstall(c);
        c->stall_until = 0;
        abort_fd(c->fd, c->from);
        free(c->pending);
        free(c);
    }
}

struct listener {
    int fd;
    struct address at;
};

static struct listener listeners[8];
static int listener_count;

static void listen_at(const char *text) {
    struct listener *l = &listeners[listener_count++];
    int one = 1;
    l->at = address_parse(text);
    if (l->at.to.any.sa_family == AF_UNIX) unlink(l->at.to.un.sun_path);
    l->fd = socket(l->at.to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l->fd, &l->at.to.any, l->at.length) || listen(l->fd, 65535)) {
        fprintf(stderr, "%s: cannot listen: %s\n", text, strerror(errno));
        exit(1);
    }
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = l};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, l->fd, &e);
}

static int is_listener(void *p) { return p >= (void *)listeners && p < (void *)(listeners + 8); }

static void serve(uint64_t until) {
    static struct epoll_event events[1024];
    while (now_ns() < until) {
        int n = epoll_wait(epoll_fd, events, 1024, stalled ? 5 : 1000);
        for (int i = 0; i < n; i++) {
            struct listener *l = events[i].data.ptr;
            if (is_listener(l)) welcome(l->fd, &l->at);
            else handle(events[i].data.ptr, events[i].events);
        }
        if (stalled) end_stalls();
    }
}

int main(int argc, char **argv) {
    double seconds = 3600;
    process_setup();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--listen") && listener_count < 8) listen_at(argv[i + 1]);
        else if (!strcmp(argv[i], "--seconds")) seconds = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--corrupt")) corrupt_every = strtoul(argv[i + 1], NULL, 10);
        else listener_count = 99;
    }
    if (listener_count < 1 || listener_count > 8 || argc % 2 == 0) {
        fprintf(stderr, "usage: echo [--seconds N] [--corrupt N] --listen unix:/path|tcp:IP:PORT [--listen ...]\n");
        return 2;
    }
    puts("ready");
    fflush(stdout);
    serve(now_ns() + (uint64_t)(seconds * 1e9));
    return 0;
}
