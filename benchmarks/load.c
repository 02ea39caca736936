/* The load client of the benchmark: one thread, epoll. It verifies every byte that it gets back (wire.h).
 *
 * usage: load --to ADDRESS [--size BYTES] [--ready-within SECONDS] [--pids PID,PID] [--pace N] --phase SECONDS:WHAT[:warm] ...
 *   WHAT is a list of KIND=COUNT, separated by commas; the connections of a kind are kept from phase to phase, and what the
 *   next phase does not ask for is aborted. KIND is one of
 *     ping     message, reply, message, ... on a connection that stays
 *     req      connect, one message, one reply, close; again
 *     idle     one message and its reply, then nothing
 *     bulk     a stream to the server at full speed, verified there
 *     source   a stream from the server at full speed, verified here
 *     stallw   as bulk, and the server stops reading it; for as long as all phases last
 *     stallr   as source, and this client stops reading it
 *   With --pace the ping connections send N messages a second together, in turns, instead of each as soon as it has its reply.
 *   A phase's time begins when all its ping and idle connections have had their first reply (at most --ready-within, 10 s).
 *   Phases marked warm are not reported. "ready N" goes to stderr as phase N begins. SIGUSR1 ends the present phase early.
 *
 * One line of JSON on stdout. Exit code: 0 fine, 1 not all phases could be run, 2 usage, 3 a byte was wrong.
 * A message without its reply at a phase's end counts with its age if that is over the phase's p99 (and, as the messages
 * that it kept from being sent would have waited too, once more for every further p50 of that age). */
#include "wire.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum kind { PING, REQ, IDLE, BULK, SOURCE, STALLW, STALLR, KINDS };
static const char *kind_names[KINDS] = {"ping", "req", "idle", "bulk", "source", "stallw", "stallr"};
static const enum mode kind_modes[KINDS] = {MODE_ECHO, MODE_ECHO, MODE_ECHO, MODE_SINK, MODE_SOURCE, MODE_SINK_STALL, MODE_SOURCE};
enum state { NEW, CONNECTING, OPEN, RESTING };

struct conn {
    int fd;
    enum kind kind;
    enum state state;
    int answered;            /* had its first reply */
    int waiting;             /* stands in the list of those to be opened */
    uint32_t events;
    uint64_t id, seq, since; /* since: when this message (req: this connection) began */
    uint64_t pos;            /* bytes of the stream sent or verified, without the head */
    size_t put, got;         /* bytes of the present message sent, received */
    uint8_t ack[8];
};

#define SUB 128              /* histogram: this many buckets per power of two: < 0.8 % wide */
struct histogram {
    uint64_t count, max, bucket[64 * SUB];
};

struct phase {
    double seconds;
    int warm;
    char label[128];
    int want[KINDS];
    struct histogram latency;
    uint64_t trips, errors, bulk_bytes, source_bytes, elapsed;
    uint64_t cpu[3], cpu_start[3];       /* busy, idle, stolen; USER_HZ ticks of the whole machine */
    char rss[256];
};

static struct address to;
static size_t size = 64;
static double ready_within = 10;
static uint64_t pace_ns, due, turn_of;   /* of --pace: from one message to the next, when the next one is due, whose it is */
static struct phase phases[16];
static int phase_count;
static struct phase *now_in;             /* the phase that is being recorded, or NULL */
static struct conn **conns[KINDS];
static int have[KINDS], room[KINDS], answered[KINDS];
static struct conn **waiting;
static int waiting_n, waiting_room, connecting;
static int epoll_fd;
static uint64_t next_id, stall_ms;
static uint8_t in[CHUNK], out[CHUNK + 16], expected[CHUNK + 16];
static char problem[256];                /* the last error seen, for the report */
static char wrong[256];                  /* the first wrong byte: ends everything */
static char pids[256];

/* ---- histogram ---- */

static unsigned slot(uint64_t ns) {
    if (ns < SUB) return (unsigned)ns;
    int shift = 63 - __builtin_clzll(ns) - 7;
    return (unsigned)((shift + 1) * SUB + (int)(ns >> shift) - SUB);
}

static double slot_middle_us(unsigned s) {
    if (s < SUB) return s / 1e3;
    int shift = (int)(s / SUB) - 1;
    return (double)((uint64_t)(s % SUB + SUB) << shift) * (1 + 0.5 / SUB) / 1e3;
}

static void record(struct histogram *h, uint64_t ns) {
    h->bucket[slot(ns)]++;
    h->count++;
    if (ns > h->max) h->max = ns;
}

static double quantile_us(const struct histogram *h, double q) {
    uint64_t rank = (uint64_t)(q * (double)h->count), seen = 0;
    for (unsigned s = 0; s < 64 * SUB && h->count; s++) {
        seen += h->bucket[s];
        if (seen > rank) return slot_middle_us(s);
    }
    return (double)h->max / 1e3;
}

/* ---- connections ---- */

static void interest(struct conn *c, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (events != c->events) epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->events = events;
}

static void shut(struct conn *c, int with_reset) {
    if (c->state == CONNECTING) connecting--;
    if (c->state != NEW) {
        if (with_reset) abort_fd(c->fd, &to);
        else close(c->fd);
    }
    if (c->answered) answered[c->kind]--;
    c->answered = 0;
    c->state = NEW;
}

static void wait_turn(struct conn *c) {
    if (c->waiting) return;
    if (waiting_n == waiting_room) waiting = realloc(waiting, sizeof *waiting * (size_t)(waiting_room = 2 * waiting_room + 64));
    waiting[waiting_n++] = c;
    c->waiting = 1;
}

/* The connection broke or could not be made: counted, and tried again a little later. */
static void failed(struct conn *c, const char *what) {
    snprintf(problem, sizeof problem, "%s: %s: %s", kind_names[c->kind], what, errno ? strerror(errno) : "closed by the other side");
    if (now_in) now_in->errors++;
    shut(c, 1);
    wait_turn(c);
}

static void corrupt(struct conn *c, uint64_t at) {
    if (!*wrong) snprintf(wrong, sizeof wrong, "%s: connection %llu, message %llu, byte %llu is wrong", kind_names[c->kind],
                          (unsigned long long)c->id, (unsigned long long)c->seq, (unsigned long long)at);
}

/* Sends what is left of the present message (of a stream: of its head). 0, or -1 when the connection broke. */
static int send_message(struct conn *c) {
    size_t n = c->kind <= IDLE ? size : HEAD_BYTES;
    message_fill(out, n, head_word(kind_modes[c->kind], c->id), c->kind == STALLW ? stall_ms : c->seq);
    ssize_t sent = send(c->fd, out + c->put, n - c->put, 0);
    if (sent < 0 && errno != EAGAIN) return -1;
    if (sent > 0) c->put += (size_t)sent;
    int streams_out = c->kind == BULK || c->kind == STALLW;
    interest(c, c->put < n || streams_out ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return 0;
}

static int head_sent(const struct conn *c) { return c->put == (c->kind <= IDLE ? size : HEAD_BYTES); }

static int open_conn(struct conn *c) {
    c->since = now_ns();
    c->fd = socket(to.to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return -1;
    tcp_nodelay(c->fd, &to);
    int r = connect(c->fd, &to.to.any, to.length);
    if (r && errno != EINPROGRESS) {         /* a Unix socket with a full backlog says EAGAIN */
        close(c->fd);
        return -1;
    }
    c->state = r ? CONNECTING : OPEN;
    if (r) connecting++;
    c->id = ++next_id;
    c->pos = c->seq = c->put = c->got = 0;
    c->events = r ? EPOLLOUT : EPOLLIN;
    struct epoll_event e = {.events = c->events, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    return 0;
}

static void start(struct conn *c) {
    if (open_conn(c)) {
        int again = errno == EAGAIN;
        snprintf(problem, sizeof problem, "%s: connect: %s", kind_names[c->kind], strerror(errno));
        if (now_in && !again) now_in->errors++;
        wait_turn(c);
    } else if (c->state == OPEN && send_message(c)) {
        failed(c, "send");
    }
}

static void connected(struct conn *c) {
    socklen_t n = sizeof errno;
    int error = 0;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    errno = error;
    if (error) {
        failed(c, "connect");
        return;
    }
    connecting--;
    c->state = OPEN;
    if (send_message(c)) failed(c, "send");
}

/* ---- one event ---- */

static void replied(struct conn *c) {
    uint64_t now = now_ns();
    if (now_in && c->kind != IDLE) record(&now_in->latency, now - c->since);
    if (!c->answered) {
        c->answered = 1;
        answered[c->kind]++;
    }
    c->got = c->put = 0;
    c->seq++;
    c->since = now;
    if (c->kind == IDLE || (c->kind == PING && pace_ns)) {
        c->state = RESTING;
    } else if (c->kind == REQ) {
        shut(c, 0);
        start(c);
    } else if (send_message(c)) {
        failed(c, "send");
    }
}

static void read_reply(struct conn *c) {
    ssize_t n = recv(c->fd, in, size - c->got + 1, 0);     /* one more than may come: a byte too many is an error too */
    if (n <= 0) {
        if (n == 0) errno = 0;
        else if (errno == EAGAIN) return;
        failed(c, "receive");
        return;
    }
    message_fill(expected, size, head_word(MODE_ECHO, c->id), c->seq);
    if (c->got + (size_t)n > size || c->state == RESTING || memcmp(in, expected + c->got, (size_t)n)) {
        size_t i = 0;
        while (i < (size_t)n && c->got + i < size && in[i] == expected[c->got + i]) i++;
        corrupt(c, c->got + i);
        return;
    }
    c->got += (size_t)n;
    if (c->got == size) replied(c);
}

static void pour(struct conn *c) {
    uint8_t *p = stream_fill(out, c->id, c->pos, CHUNK);
    ssize_t sent = send(c->fd, p, CHUNK, 0);
    if (sent < 0 && errno != EAGAIN) failed(c, "send");
    if (sent > 0) c->pos += (uint64_t)sent;
}

/* The sink's reports: how many bytes it has verified. */
static void read_reports(struct conn *c) {
    ssize_t n = recv(c->fd, in, 512, 0);
    if (n <= 0) {
        if (n == 0) errno = 0;
        else if (errno == EAGAIN) return;
        failed(c, "receive");
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        uint64_t total;
        c->ack[c->got++] = in[i];
        if (c->got < 8) continue;
        c->got = 0;
        memcpy(&total, c->ack, 8);
        if (total == ACK_CORRUPT || total > c->pos) corrupt(c, c->seq);
        else if (now_in) now_in->bulk_bytes += total - c->seq;
        c->seq = total;
    }
}

static void read_stream(struct conn *c) {
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n <= 0) {
        if (n == 0) errno = 0;
        else if (errno == EAGAIN) return;
        failed(c, "receive");
        return;
    }
    size_t good = stream_check(c->id, c->pos, in, (size_t)n);
    if (good < (size_t)n) corrupt(c, c->pos + good);
    c->pos += (size_t)n;
    if (now_in) now_in->source_bytes += (uint64_t)n;
    if (c->kind == STALLR && c->pos >= STALL_AFTER) interest(c, 0);
}

static void handle(struct conn *c, uint32_t events) {
    if (c->state == CONNECTING) {
        connected(c);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (c->kind <= IDLE) read_reply(c);
        else if (c->kind == BULK || c->kind == STALLW) read_reports(c);
        else read_stream(c);
    }
    if (events & EPOLLOUT && c->state == OPEN) {
        if (!head_sent(c)) {
            if (send_message(c)) failed(c, "send");
        } else if (c->kind == BULK || c->kind == STALLW) {
            pour(c);
        }
    }
}

/* ---- phases ---- */

static void machine_cpu(uint64_t ticks[3]) {
    unsigned long long v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    if (f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7) != 8) v[0] = 0;
    if (f) fclose(f);
    ticks[0] = v[0] + v[1] + v[2] + v[5] + v[6];
    ticks[1] = v[3] + v[4];
    ticks[2] = v[7];
}

static void note_rss(struct phase *p) {
    char list[256], path[64], line[256], *save = NULL;
    size_t at = 0;
    strcpy(list, pids);
    for (char *pid = strtok_r(list, ",", &save); pid; pid = strtok_r(NULL, ",", &save)) {
        long kb = -1;
        snprintf(path, sizeof path, "/proc/%d/status", atoi(pid));
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
        if (f) fclose(f);
        at += (size_t)snprintf(p->rss + at, sizeof p->rss - at, "%s%ld", at ? "," : "", kb);
    }
}

static void set_count(enum kind kind, int want) {
    if (want > room[kind]) conns[kind] = realloc(conns[kind], sizeof **conns * (size_t)(room[kind] = want));
    while (have[kind] > want) {
        struct conn *c = conns[kind][--have[kind]];
        shut(c, 1);
        for (int i = 0; i < waiting_n; i++)
            if (waiting[i] == c) waiting[i--] = waiting[--waiting_n];
        free(c);
    }
    while (have[kind] < want) {
        struct conn *c = calloc(1, sizeof *c);
        c->kind = kind;
        conns[kind][have[kind]++] = c;
        wait_turn(c);
    }
}

/* Opens those that wait, not more than fit a listener's backlog at a time. */
static void open_waiting(void) {
    int n = waiting_n, unanswered = have[PING] + have[IDLE] - answered[PING] - answered[IDLE] - waiting_n;
    for (int i = 0; i < n && connecting + (unanswered > 0 ? unanswered : 0) < 256; i++, unanswered++) {
        struct conn *c = waiting[0];
        waiting[0] = waiting[--waiting_n];
        c->waiting = 0;
        start(c);
        if (c->waiting) return;
    }
}

/* Sends what is due. A message that finds all connections waiting for a reply is not made up for later. */
static void send_paced(uint64_t now) {
    if (now > due + 100 * pace_ns) due = now;
    for (; due <= now; due += pace_ns)
        for (int i = 0; i < have[PING]; i++) {
            struct conn *c = conns[PING][turn_of++ % (uint64_t)have[PING]];
            if (c->state != RESTING) continue;
            c->state = OPEN;
            c->since = now;
            if (send_message(c)) failed(c, "send");
            break;
        }
}

static void turn(uint64_t until) {
    static struct epoll_event events[1024];
    uint64_t now = now_ns();
    if (pace_ns) send_paced(now);
    if (pace_ns && due < until) until = due;
    uint64_t ns = now >= until ? 0 : until - now;
    if (waiting_n) open_waiting();
    if (waiting_n && ns > 1000000) ns = 1000000;
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    int n = epoll_pwait2(epoll_fd, events, 1024, &timeout, NULL);
    for (int i = 0; i < n && !*wrong; i++) handle(events[i].data.ptr, events[i].events);
}

static int all_answered(const struct phase *p) { return answered[PING] == p->want[PING] && answered[IDLE] == p->want[IDLE]; }

static int get_ready(const struct phase *p) {
    uint64_t until = now_ns() + (uint64_t)(ready_within * 1e9);
    while (!all_answered(p) && now_ns() < until && !*wrong) turn(until);
    return *wrong || all_answered(p);
}

static void count_unanswered(struct phase *p, uint64_t now) {
    uint64_t p99 = (uint64_t)(quantile_us(&p->latency, 0.99) * 1e3), p50 = (uint64_t)(quantile_us(&p->latency, 0.5) * 1e3);
    for (int kind = PING; kind <= REQ; kind++)
        for (int i = 0; i < have[kind]; i++) {
            struct conn *c = conns[kind][i];
            uint64_t age = now - c->since;
            if (c->state == NEW || c->state == RESTING || age <= p99) continue;
            for (uint64_t a = age; a > p50; a -= p50) {
                record(&p->latency, a);
                if (!p50) break;
            }
        }
}

static volatile sig_atomic_t enough;     /* SIGUSR1: the phase has lasted long enough */

static void on_enough(int number) {
    (void)number;
    enough = 1;
}

static void run_phase(struct phase *p) {
    uint64_t begin = now_ns(), until = begin + (uint64_t)(p->seconds * 1e9), now;
    fprintf(stderr, "ready %d\n", (int)(p - phases));
    machine_cpu(p->cpu_start);
    now_in = p;
    while ((now = now_ns()) < until && !*wrong && !enough) turn(until);
    enough = 0;
    now_in = NULL;
    machine_cpu(p->cpu);
    p->elapsed = now - begin;
    p->trips = p->latency.count;
    count_unanswered(p, now);
    note_rss(p);
}

/* ---- report and command line ---- */

static void print_phase(const struct phase *p, const char *before) {
    const struct histogram *h = &p->latency;
    double seconds = (double)p->elapsed / 1e9, tick_us = 1e6 / (double)sysconf(_SC_CLK_TCK);
    printf("%s{\"label\":\"%s\",\"seconds\":%.4f,\"round_trips\":%llu,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f,\"bulk_bytes\":%llu,\"source_bytes\":%llu,\"errors\":%llu,\"busy_us\":%.0f,\"idle_us\":%.0f,"
           "\"stolen_us\":%.0f,\"rss_kb\":[%s]}",
           before, p->label, seconds, (unsigned long long)p->trips, quantile_us(h, 0.5), quantile_us(h, 0.9), quantile_us(h, 0.99),
           quantile_us(h, 0.999), (double)h->max / 1e3, (unsigned long long)p->bulk_bytes, (unsigned long long)p->source_bytes,
           (unsigned long long)p->errors, (double)(p->cpu[0] - p->cpu_start[0]) * tick_us,
           (double)(p->cpu[1] - p->cpu_start[1]) * tick_us, (double)(p->cpu[2] - p->cpu_start[2]) * tick_us, p->rss);
}

static void usage(const char *what) {
    fprintf(stderr, "%s\nusage: load --to ADDRESS [--size BYTES] [--ready-within SECONDS] [--pids PID,PID] "
                    "[--pace MESSAGES_PER_SECOND] --phase SECONDS:KIND=COUNT[,KIND=COUNT][:warm] ...\n", what);
    exit(2);
}

static void parse_phase(const char *text) {
    struct phase *p = &phases[phase_count++];
    char copy[128], *save = NULL, *rest;
    if (phase_count > 16 || strlen(text) >= sizeof copy) usage("--phase: at most 16, each shorter than 128 characters");
    strcpy(p->label, text);
    strcpy(copy, text);
    p->seconds = strtod(copy, &rest);
    if (*rest != ':') usage("--phase: SECONDS:WHAT");
    char *warm = strchr(rest + 1, ':');
    if (warm) *warm = 0;
    p->warm = warm != NULL;
    for (char *item = strtok_r(rest + 1, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(item, '=');
        int kind = 0;
        if (equals) *equals = 0;
        while (kind < KINDS && strcmp(kind_names[kind], item)) kind++;
        if (kind == KINDS || !equals) usage("--phase: KIND=COUNT; KIND is ping, req, idle, bulk, source, stallw or stallr");
        p->want[kind] = atoi(equals + 1);
    }
}

static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--to")) to = address_parse(value);
        else if (!strcmp(argv[i], "--size")) size = strtoul(value, NULL, 10);
        else if (!strcmp(argv[i], "--ready-within")) ready_within = atof(value);
        else if (!strcmp(argv[i], "--pids")) snprintf(pids, sizeof pids, "%s", value);
        else if (!strcmp(argv[i], "--pace") && atoi(value) > 0) pace_ns = 1000000000u / (uint64_t)atoi(value);
        else if (!strcmp(argv[i], "--phase")) parse_phase(value);
        else usage(argv[i]);
    }
    if (!to.length || !phase_count) usage("--to and --phase are needed");
    if (size < HEAD_BYTES || size > CHUNK) usage("--size: from 16 to 65536");
}

static int run(int *done) {
    for (; *done < phase_count; (*done)++) {
        struct phase *p = &phases[*done];
        for (int kind = 0; kind < KINDS; kind++) set_count(kind, p->want[kind]);
        if (!get_ready(p)) {
            char last[200];
            snprintf(last, sizeof last, "%.199s", problem);
            snprintf(problem, sizeof problem, "%d of %d connections had a reply after %g s; %s", answered[PING] + answered[IDLE],
                     p->want[PING] + p->want[IDLE], ready_within, *last ? last : "the others are still waiting");
            return 1;
        }
        run_phase(p);
        if (*wrong) return 3;
    }
    return 0;
}

int main(int argc, char **argv) {
    int done = 0, printed = 0;
    process_setup();
    prctl(PR_SET_TIMERSLACK, 1);
    struct sigaction action = {.sa_handler = on_enough};
    sigaction(SIGUSR1, &action, NULL);
    parse(argc, argv);
    for (int i = 0; i < phase_count; i++) stall_ms += (uint64_t)(1000 * phases[i].seconds) + 20;
    next_id = ((uint64_t)getpid() & 0xFFFF) << 24;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int code = run(&done);
    printf("{\"ok\":%s,\"error\":\"%s\",\"wrong\":\"%s\",\"phases\":[", code ? "false" : "true", problem, wrong);
    for (int i = 0; i < done; i++)
        if (!phases[i].warm) print_phase(&phases[i], printed++ ? "," : "");
    printf("]}\n");
    for (int kind = 0; kind < KINDS; kind++) set_count(kind, 0);
    return code;
}
