/* Plain requests from outside Python: CONNECTIONS sockets, each sends REQUEST again as soon as the answer is complete.
 *
 *     load PORT SECONDS CONNECTIONS REQUEST_FILE      prints the answers with status 200, and those with another one
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, ANSWER_MAX = 65536 };

struct connection {
    size_t filled;
    char answer[ANSWER_MAX];
};

static struct connection connections[CONNECTIONS_MAX];
static struct pollfd sockets[CONNECTIONS_MAX];
static char request[1 << 20];
static size_t request_size;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_request(int socket) {
    for (size_t sent = 0; sent < request_size;) {
        ssize_t more = write(socket, request + sent, request_size - sent);
        if (more <= 0) fail("write");
        sent += (size_t)more;
    }
}

/* The size of the answer that `one` begins with; 0 while its end is not there. */
static size_t answer_size(struct connection *one) {
    one->answer[one->filled] = 0;
    char *body = strstr(one->answer, "\r\n\r\n");
    if (body == NULL) return 0;
    size_t size = (size_t)(body + 4 - one->answer);
    for (char *line = strstr(one->answer, "\r\n"); line != NULL && line < body; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, "content-length:", 15) == 0) size += strtoul(line + 17, NULL, 10);
    return one->filled >= size ? size : 0;
}

int main(int count, char **given) {
    if (count != 5) fail("usage: load PORT SECONDS CONNECTIONS REQUEST_FILE");
    int amount = atoi(given[3]);
    if (amount < 1 || amount > CONNECTIONS_MAX) fail("CONNECTIONS");
    FILE *file = fopen(given[4], "rb");
    if (file == NULL) fail(given[4]);
    request_size = fread(request, 1, sizeof request, file);
    fclose(file);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(given[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int n = 0; n < amount; n++) {
        int yes = 1;
        sockets[n].fd = socket(AF_INET, SOCK_STREAM, 0);
        sockets[n].events = POLLIN;
        if (connect(sockets[n].fd, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
        setsockopt(sockets[n].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        send_request(sockets[n].fd);
    }
    long good = 0, bad = 0;
    double begin = now(), seconds = atof(given[2]);
    while (now() - begin < seconds) {
        if (poll(sockets, (nfds_t)amount, 100) < 0) fail("poll");
        for (int n = 0; n < amount; n++) {
            if (!(sockets[n].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            struct connection *one = &connections[n];
            ssize_t more = read(sockets[n].fd, one->answer + one->filled, ANSWER_MAX - 1 - one->filled);
            if (more <= 0) fail("read");
            one->filled += (size_t)more;
            size_t size = answer_size(one);
            if (size == 0) continue;
            if (strncmp(one->answer, "HTTP/1.1 200", 12) == 0) good++;
            else bad++;
            one->filled = 0;
            send_request(sockets[n].fd);
        }
    }
    printf("%ld %ld %.6f\n", good, bad, now() - begin);
    return 0;
}
