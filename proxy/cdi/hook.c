/*
 * hostlane-hook: what a container runtime calls between the making of a container's namespaces and the start of its
 * application (createRuntime), and after its end (poststop). See docs/containers.md; `hostlane cdi install` puts it and
 * the CDI file that names it on the host.
 *
 *   hostlane-hook start SOCKET SECONDS [strict]     the OCI state of the container on standard input
 *   hostlane-hook stop  SOCKET SECONDS
 *   hostlane-hook version
 *
 * start opens the container's network namespace and a descriptor of its process (pidfd), hands both to the door and
 * waits until that says that the container's listeners are there. SECONDS bound all of it together. Whatever goes wrong
 * is one line on standard error (which runtimes show when a hook fails) and in the system log; the container starts all
 * the same, unless `strict` is given. stop tells the door; nothing that goes wrong there keeps anybody.
 *
 * It is linked statically, as it runs on hosts where nothing is installed, and allocates nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum {
    VERSION = 1,
    MOST_STATE = 1 << 19, /* bytes; annotations may be 256 KiB (Kubernetes) */
    MOST_ID = 128,
    MOST_DIGITS = 10,
    MOST_SECONDS = 60,
    AGAIN_MS = 10, /* between tries to reach a door that is not there yet, or has a full backlog */
};

static char state[MOST_STATE];
static char answer[4096];
static long long deadline_ms;
static bool strict;
static char container[MOST_ID + 1] = "?";

/* Text that is not terminated: a part of what was read. */
struct slice {
    const char *at, *end;
};

/* JSON, as far as it is needed: finding the members of one object. Returns false where it is not JSON. */

static void skip_space(struct slice *text)
{
    while (text->at < text->end && memchr(" \t\r\n", *text->at, 4) != NULL)
        text->at++;
}

static bool take(struct slice *text, char wanted)
{
    skip_space(text);
    if (text->at == text->end || *text->at != wanted)
        return false;
    text->at++;
    return true;
}

static bool take_string(struct slice *text, struct slice *inside)
{
    if (!take(text, '"'))
        return false;
    inside->at = text->at;
    for (; text->at < text->end; text->at++) {
        if (*text->at == '\\') {
            if (++text->at == text->end) /* what is escaped is no end */
                return false;
        } else if (*text->at == '"') {
            inside->end = text->at++;
            return true;
        }
    }
    return false;
}

static bool skip_value(struct slice *text)
{
    struct slice inside;
    long depth = 0;

    do {
        skip_space(text);
        if (text->at == text->end)
            return false;
        if (*text->at == '"') {
            if (!take_string(text, &inside))
                return false;
        } else if (memchr("{[", *text->at, 2) != NULL) {
            depth++;
            text->at++;
        } else if (memchr("}]", *text->at, 2) != NULL) {
            depth--;
            text->at++;
        } else if (memchr(",:", *text->at, 2) != NULL) {
            if (depth == 0)
                return false;
            text->at++;
        } else {
            while (text->at < text->end && memchr(" \t\r\n,:{}[]\"", *text->at, 11) == NULL)
                text->at++;
        }
    } while (depth > 0);
    return depth == 0;
}

/* The value of a member of the object that `text` is: what stands between the quotes of a string, or a bare word. */
static bool find_member(struct slice text, const char *name, struct slice *value)
{
    struct slice key, inside;
    size_t length = strlen(name);

    if (!take(&text, '{'))
        return false;
    while (take_string(&text, &key) && take(&text, ':')) {
        skip_space(&text);
        value->at = text.at;
        if (!skip_value(&text))
            return false;
        value->end = text.at;
        if ((size_t)(key.end - key.at) == length && memcmp(key.at, name, length) == 0) {
            if (*value->at != '"')
                return true;
            if (!take_string(value, &inside))
                return false;
            *value = inside;
            return true;
        }
        if (!take(&text, ','))
            return false;
    }
    return false;
}

/* The text of a string, as far as it can be printed in a line: in place. */
static void unescape(struct slice *inside)
{
    char *to = (char *)inside->at;

    for (const char *from = inside->at; from < inside->end; from++) {
        bool plain = *from != '\\' || memchr("\"\\/", *++from, 3) != NULL;

        *to++ = plain && (unsigned char)*from >= ' ' ? *from : ' ';
    }
    inside->end = to;
}

/* Time */

static long long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Wait until the descriptor has what `events` says. False: the time is over. */
static bool wait_for(int descriptor, short events)
{
    struct pollfd waiting = {.fd = descriptor, .events = events};

    for (;;) {
        long long left = deadline_ms - now_ms();
        int ready = left <= 0 ? 0 : poll(&waiting, 1, (int)left);

        if (ready > 0)
            return true;
        if (ready == 0)
            return false;
        if (errno != EINTR)
            return false;
    }
}

/* Words */

/* To the host's log, unless that makes anybody wait. */
static void write_log(const char *line)
{
    static const struct sockaddr_un place = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    char entry[1024];
    int length = snprintf(entry, sizeof entry, "<28>hostlane-hook: %s", line); /* daemon.warning */
    int log = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (log < 0)
        return;
    if (length >= (int)sizeof entry)
        length = sizeof entry - 1;
    (void)!sendto(log, entry, (size_t)length, MSG_NOSIGNAL, (const struct sockaddr *)&place, sizeof place);
    close(log);
}

/* Say what is wrong. Returns the exit code: the container starts all the same unless it is strict. */
static int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int complain(const char *format, ...)
{
    char why[640], line[960];
    va_list arguments;
    int length;

    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    length = snprintf(line, sizeof line, "container %.12s: %s%s", container, why,
                      strict ? "; it is not started, as the device is strict (hostlane cdi install --strict)" : "");
    if (length >= (int)sizeof line)
        length = sizeof line - 1;
    (void)!write(STDERR_FILENO, "hostlane-hook: ", 15);
    (void)!write(STDERR_FILENO, line, (size_t)length);
    (void)!write(STDERR_FILENO, "\n", 1);
    write_log(line);
    return strict ? 1 : 0;
}

/* What the runtime says */

/* All of standard input, which ends with the state. Returns its length; -1: too long, or there is no end. */
static ssize_t read_state(void)
{
    size_t length = 0;

    while (wait_for(STDIN_FILENO, POLLIN)) {
        ssize_t got = read(STDIN_FILENO, state + length, sizeof state - length);

        if (got == 0)
            return (ssize_t)length;
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return -1;
        if (got > 0)
            length += (size_t)got;
        if (length == sizeof state)
            return -1;
    }
    return -1;
}

/* The container's name for the engine: it is written into messages as it is. */
static bool read_id(struct slice text)
{
    static const char allowed[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.-";
    struct slice id;
    size_t length;

    if (!find_member(text, "id", &id))
        return false;
    length = (size_t)(id.end - id.at);
    if (length == 0 || length > MOST_ID)
        return false;
    for (size_t i = 0; i < length; i++)
        if (memchr(allowed, id.at[i], sizeof allowed - 1) == NULL)
            return false;
    memcpy(container, id.at, length);
    container[length] = '\0';
    return true;
}

/* The number of the container's first process, in this process's pid namespace; 0: the state has none. */
static int read_pid(struct slice text)
{
    struct slice pid;
    long long number = 0;

    if (!find_member(text, "pid", &pid) || pid.end - pid.at > MOST_DIGITS)
        return 0;
    for (; pid.at < pid.end; pid.at++) {
        if (*pid.at < '0' || *pid.at > '9')
            return 0;
        number = number * 10 + (*pid.at - '0');
    }
    return number > 0 && number <= 0x7fffffff ? (int)number : 0;
}

/* The door */

/* A connection to it; -1, and errno says why. A strict container waits for a door that is not there yet. */
static int reach(const char *path)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    int door;

    if (strlen(path) >= sizeof place.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(place.sun_path, path);
    door = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (door < 0)
        return -1;
    while (connect(door, (const struct sockaddr *)&place, sizeof place) != 0) {
        bool may_come = errno == EAGAIN || errno == EINTR || (strict && (errno == ENOENT || errno == ECONNREFUSED));
        int why = errno;

        if (!may_come || now_ms() + AGAIN_MS >= deadline_ms) {
            close(door);
            errno = why;
            return -1;
        }
        poll(NULL, 0, AGAIN_MS);
    }
    return door;
}

static bool tell(int door, const char *type, const int *descriptors, int count)
{
    char message[MOST_ID + 64];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } rights;
    struct iovec part = {.iov_base = message};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    size_t size = (size_t)count * sizeof(int);

    part.iov_len = (size_t)snprintf(message, sizeof message, "{\"type\":\"%s\",\"id\":\"%s\"}", type, container);
    if (count > 0) {
        memset(&rights, 0, sizeof rights);
        packet.msg_control = &rights;
        packet.msg_controllen = CMSG_SPACE(size);
        rights.header.cmsg_level = SOL_SOCKET;
        rights.header.cmsg_type = SCM_RIGHTS;
        rights.header.cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(&rights.header), descriptors, size);
    }
    return sendmsg(door, &packet, MSG_NOSIGNAL) == (ssize_t)part.iov_len;
}

/* Wait for the door's word. Returns the exit code. */
static int hear(int door)
{
    struct slice text = {answer, answer}, type, why;
    ssize_t length;

    do {
        if (!wait_for(door, POLLIN))
            return complain("the door has not answered in time");
        length = recv(door, answer, sizeof answer, 0);
    } while (length < 0 && (errno == EINTR || errno == EAGAIN));
    if (length < 0)
        return complain("the door has gone (%s)", strerror(errno));
    if (length == 0)
        return complain("the door has gone without a word");
    text.end += length;
    if (find_member(text, "type", &type)) {
        if (type.end - type.at == 5 && memcmp(type.at, "ready", 5) == 0)
            return 0;
        if (type.end - type.at == 7 && memcmp(type.at, "refused", 7) == 0 && find_member(text, "why", &why)) {
            unescape(&why);
            return complain("%.*s", (int)(why.end - why.at), why.at);
        }
    }
    return complain("the door's answer is not understood: use one version of hostlane");
}

static int start(const char *path, struct slice text)
{
    struct stat inside, own;
    char file[64];
    int pid, door, descriptors[2];

    pid = read_pid(text);
    if (pid == 0)
        return complain("the runtime does not say which process it is (pid in the state on standard input)");
    snprintf(file, sizeof file, "/proc/%d/ns/net", pid);
    descriptors[0] = open(file, O_RDONLY | O_CLOEXEC);
    if (descriptors[0] < 0)
        return complain("cannot open %s: %s", file, strerror(errno));
    if (fstat(descriptors[0], &inside) == 0 && stat("/proc/self/ns/net", &own) == 0 && inside.st_ino == own.st_ino &&
        inside.st_dev == own.st_dev)
        return complain("its network is the host's, where everybody could call as it does");
    descriptors[1] = (int)syscall(SYS_pidfd_open, pid, 0);
    if (descriptors[1] < 0)
        return complain("cannot watch process %d: %s", pid, strerror(errno));
    door = reach(path);
    if (door < 0)
        return complain("the door is away (%s: %s)", path, strerror(errno));
    if (!tell(door, "starting", descriptors, 2))
        return complain("the door cannot be told (%s)", strerror(errno));
    return hear(door);
}

static int stop(const char *path)
{
    int door = reach(path);

    return door >= 0 && tell(door, "stopped", NULL, 0) ? hear(door) : 0; /* it will see for itself */
}

int main(int count, char **words)
{
    struct slice text = {state, state};
    bool starts, known;
    long seconds;
    ssize_t length;

    if (count == 2 && strcmp(words[1], "version") == 0) {
        printf("hostlane-hook %d\n", VERSION);
        return 0;
    }
    starts = count >= 2 && strcmp(words[1], "start") == 0;
    strict = starts && strcmp(words[count - 1], "strict") == 0;
    seconds = count >= 4 ? strtol(words[3], NULL, 10) : 0;
    known = starts ? count == (strict ? 5 : 4) : count == 4 && strcmp(words[1], "stop") == 0;
    if (!known || seconds < 1 || seconds > MOST_SECONDS)
        return complain("called with other words than start|stop SOCKET SECONDS: use one version of hostlane");
    deadline_ms = now_ms() + seconds * 1000;
    length = read_state();
    if (length < 0)
        return complain("the runtime's state on standard input is too long, or has no end");
    text.end += length;
    if (!read_id(text))
        return complain("the runtime's state on standard input is not understood");
    return starts ? start(words[2], text) : stop(words[2]);
}
