/* A container out of its mind: connects to a Unix socket and closes at once, again and again, until it is killed.
 *
 * usage: storm PATH
 *
 * connect(2) waits while the listener's queue is full, as it does for any blocking client. */
#include "wire.h"

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: storm PATH\n");
        return 2;
    }
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(argv[1]) >= sizeof to.sun_path) {
        fprintf(stderr, "storm: the path is too long: %s\n", argv[1]);
        return 2;
    }
    strcpy(to.sun_path, argv[1]);
    process_setup();
    for (;;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) {
            perror(argv[1]);
            return 1;
        }
        close(fd);
    }
}
