/* What does the kernel alone take for a streamed token: one send() of some bytes on a TCP connection over loopback?
 *
 *   bench_send [connections [bytes [sends a second and connection [seconds]]]]     default: 100, 280, 100, 3
 *
 * The floor under bench_null_server: as many connections, as large events, as often, all of them one after the other
 * and then a pause, to another process that reads them as they come. CPU time of the sender alone; on loopback that
 * holds most of the receiver's protocol work. Two lines: paced, and as fast as it goes.
 */
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1000, BYTES_MAX = 16384 };

static int die(const char *what)
{
    perror(what);
    exit(1);
}

/* The child: reads whatever comes, until it is killed. */
static void receive(const struct sockaddr_in *to, int n)
{
    static char bytes[1 << 16];
    int poll = epoll_create1(0);
    for (int i = 0; i < n; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        if (connect(fd, (const struct sockaddr *)to, sizeof *to) != 0 || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e) != 0)
            die("bench_send: connect");
    }
    for (struct epoll_event got[64];;) {
        int n_got = epoll_wait(poll, got, 64, -1);
        for (int i = 0; i < n_got; i++)
            if (read(got[i].data.fd, bytes, sizeof bytes) == 0)
                exit(0);
    }
}

/* Rounds of one send on each connection, `pause_ns` from one to the next; returns CPU time a send. */
static double rounds(const int *fds, int n, size_t size, uint64_t pause_ns, int n_round)
{
    static char bytes[BYTES_MAX];
    uint64_t begin = clock_process_cpu_ns_of(getpid()), next = clock_ns();
    for (int r = 0; r < n_round; r++) {
        for (int i = 0; i < n; i++)
            if (send(fds[i], bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
                die("bench_send: send");
        next += pause_ns;
        uint64_t now = clock_ns();
        struct timespec pause = {0, (long)(next > now ? next - now : 0)};
        if (pause.tv_nsec)
            nanosleep(&pause, NULL);
    }
    return (double)(clock_process_cpu_ns_of(getpid()) - begin) * 1e-9 / (double)n / (double)n_round;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 100, size = argc > 2 ? atoi(argv[2]) : 280,
        rate = argc > 3 ? atoi(argv[3]) : 100;
    int duration = argc > 4 ? atoi(argv[4]) : 3, fds[CONNECTIONS_MAX], one = 1;
    if (n < 1 || n > CONNECTIONS_MAX || size < 1 || size > BYTES_MAX || rate < 2 || rate > 100000 || duration < 1) {
        fprintf(stderr, "bench_send: 1 to %d connections, 1 to %d bytes, 2 to 100000 times a second\n", CONNECTIONS_MAX,
                BYTES_MAX);
        return 2;
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t at_len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, n) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &at_len) != 0)
        die("bench_send: listen");
    pid_t child = fork();
    if (child == 0)
        receive(&at, n);
    for (int i = 0; i < n; i++) {
        fds[i] = accept(listener, NULL, NULL);
        if (fds[i] < 0 || setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
            die("bench_send: accept");
    }
    double paced = rounds(fds, n, (size_t)size, (uint64_t)(1000000000 / rate), rate * duration);
    double flat = rounds(fds, n, (size_t)size, 0, rate * duration);
    printf(
        "%d connections, %d bytes a send, %d a second each: %.2f us of CPU time a send; as fast as it goes: %.2f us\n",
        n, size, rate, paced * 1e6, flat * 1e6);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 0;
}
