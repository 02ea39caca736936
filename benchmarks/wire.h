/* What the load client and the server of the benchmark agree on: the first word of a connection, the pattern, addresses.
 *
 * A connection's first 8 bytes are its head word: magic (16 bits), mode (8), connection id (40). The next 8 bytes are a
 * parameter: the sequence number of a message, or the milliseconds a stalling reader stays stalled. Every further byte
 * follows from the connection id, the sequence number and its own position, so a byte that is lost, changed, doubled or
 * delivered to another connection is seen by whoever reads it. Little-endian machines only. */
#ifndef WIRE_H
#define WIRE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE          /* accept4 */
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum mode { MODE_ECHO = 1, MODE_SINK = 2, MODE_SOURCE = 3, MODE_SINK_STALL = 4 };

#define MAGIC 0xB17Eull
#define HEAD_BYTES 16
#define CHUNK 65536              /* bytes a bulk stream may move per event, so that small messages get their turn */
#define ACK_EVERY (1u << 20)     /* the sink reports the bytes it has verified, each time this many more have come */
#define STALL_AFTER (1u << 20)   /* a reader that stops has read this much before */
#define ACK_CORRUPT UINT64_MAX   /* the sink's report of a byte that is not what it should be */

static inline uint64_t head_word(enum mode mode, uint64_t id) { return MAGIC << 48 | (uint64_t)mode << 40 | (id & 0xFFFFFFFFFFull); }
static inline uint64_t head_magic(uint64_t word) { return word >> 48; }
static inline enum mode head_mode(uint64_t word) { return (enum mode)(word >> 40 & 0xFF); }
static inline uint64_t head_id(uint64_t word) { return word & 0xFFFFFFFFFFull; }

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* Word k of the pattern: multiples of odd constants, so neighbours differ in many bits. */
static inline uint64_t pattern(uint64_t id, uint64_t seq, uint64_t k) {
    return id * 0x9E3779B97F4A7C15ull + seq * 0xC2B2AE3D27D4EB4Full + k * 0xD6E8FEB86659FD93ull + 0xA5A5A5A5A5A5A5A5ull;
}

/* One whole message into buf, which must have room for size rounded up to 8. */
static inline void message_fill(uint8_t *buf, size_t size, uint64_t head, uint64_t seq) {
    uint64_t *words = (uint64_t *)buf, id = head_id(head);
    words[0] = head;
    words[1] = seq;
    for (size_t k = 2; k < (size + 7) / 8; k++) words[k] = pattern(id, seq, k);
}

/* Bytes [pos, pos + n) of a bulk stream; returns where in buf they begin. buf must have room for n + 16. */
static inline uint8_t *stream_fill(uint8_t *buf, uint64_t id, uint64_t pos, size_t n) {
    uint64_t *words = (uint64_t *)buf, first = pos / 8;
    for (size_t k = 0; k < n / 8 + 2; k++) words[k] = pattern(id, 0, first + k);
    return buf + pos % 8;
}

static inline int stream_byte_ok(uint64_t id, uint64_t pos, uint8_t byte) {
    return byte == (uint8_t)(pattern(id, 0, pos / 8) >> 8 * (pos % 8));
}

/* Index of the first byte of p that is not the stream's byte at pos + index; n if all are right. */
static inline size_t stream_check(uint64_t id, uint64_t pos, const uint8_t *p, size_t n) {
    size_t i = 0;
    for (; i < n && (pos + i) % 8; i++)
        if (!stream_byte_ok(id, pos + i, p[i])) return i;
    uint64_t first = (pos + i) / 8, differ = 0;
    size_t words = (n - i) / 8, start = i;
    for (size_t k = 0; k < words; k++) {
        uint64_t word;
        memcpy(&word, p + start + 8 * k, 8);
        differ |= word ^ pattern(id, 0, first + k);
    }
    if (!differ) i += 8 * words;      /* otherwise look at each byte, to name the place */
    for (; i < n; i++)
        if (!stream_byte_ok(id, pos + i, p[i])) return i;
    return n;
}

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_in in;
    } to;
    socklen_t length;
};

/* "unix:/path" or "tcp:IP:PORT" (IPv4). Exits with 2 and one line when it is neither. */
static inline struct address address_parse(const char *text) {
    struct address a;
    memset(&a, 0, sizeof a);
    const char *colon = strrchr(text, ':');
    if (!strncmp(text, "unix:", 5) && strlen(text + 5) < sizeof a.to.un.sun_path) {
        a.to.un.sun_family = AF_UNIX;
        strcpy(a.to.un.sun_path, text + 5);
        a.length = sizeof a.to.un;
        return a;
    }
    char ip[64] = "";
    if (!strncmp(text, "tcp:", 4) && colon > text + 4 && (size_t)(colon - text - 4) < sizeof ip) {
        memcpy(ip, text + 4, (size_t)(colon - text - 4));
        a.to.in.sin_family = AF_INET;
        a.to.in.sin_port = htons((uint16_t)atoi(colon + 1));
        a.length = sizeof a.to.in;
        if (inet_pton(AF_INET, ip, &a.to.in.sin_addr) == 1) return a;
    }
    fprintf(stderr, "%s: not an address; allowed: unix:/path or tcp:IP:PORT\n", text);
    exit(2);
}

static inline void tcp_nodelay(int fd, const struct address *a) {
    int one = 1;
    if (a->to.any.sa_family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* A reset where the socket type has one: TCP by SO_LINGER 0. A Unix socket is simply closed. */
static inline void abort_fd(int fd, const struct address *a) {
    struct linger now = {1, 0};
    if (a->to.any.sa_family == AF_INET) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

/* As many descriptors as this process may have; dies with its parent, so that nothing outlives the runner. */
static inline void process_setup(void) {
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

#endif
