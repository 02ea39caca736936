/*
 * connectfirst IP PORT [WORDS]: connects with the first instruction that is its own, as no runtime does that has to be
 * loaded before. Exit code 0: connected; otherwise the errno, by its name on standard output. With WORDS it then stays.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct sockaddr_in place = {.sin_family = AF_INET};
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int why = 0;

    if (count < 3 || inet_pton(AF_INET, words[1], &place.sin_addr) != 1)
        return 255;
    place.sin_port = htons((unsigned short)atoi(words[2]));
    if (connect(sock, (const struct sockaddr *)&place, sizeof place) != 0)
        why = errno;
    puts(why == 0 ? "connected" : strerrorname_np(why));
    fflush(stdout);
    if (count > 3)
        pause();
    return why;
}
