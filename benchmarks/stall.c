/* Readers that stop reading, on 127.0.0.1, on one thread with epoll (Linux). Prints one line of JSON per result.

   stall PORT COUNT BYTES PATH...
       Opens COUNT WebSockets, the paths in turn, with a receive buffer of BYTES (SO_RCVBUF). Each reads its first message
       and then nothing more. Prints a line when all have come so far. Then obeys the lines on stdin until that ends:
         read SECONDS         reads again, until each has come to its end or the time is over; what was found there

   A reader that does not read cannot see that it was closed: the end stands behind what it has left in the queue. */

#include "clients.h"

#define HANDSHAKES 64 /* at once */
#define OPENING_LIMIT (60 * SECOND)
#define ROOM 16384 /* for the answer to the handshake and the first message */

typedef struct {
    int fd;
    bool is_open;
    size_t length;
    char data[ROOM];
} Reader;

static Reader *readers;
static int count, started, reading, stalled, port, path_count, receive_bytes;
static char **paths;

static void open_one(void) {
    Reader *reader = &readers[started];
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          paths[started % path_count], port);
    reader->fd = unconnected(started / PER_SOURCE);
    /* Before it connects: a window that was offered once is not taken back. */
    setsockopt(reader->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    connect_to(port, reader->fd);
    reader->is_open = true;
    watch(reader->fd, (uint64_t)started);
    started++;
    reading++;
    if (!sent(reader->fd, request, (size_t)length)) die("a handshake could not be sent");
}

static void open_more(void) {
    while (started < count && reading < HANDSHAKES) open_one();
}

/* Whether the answer to the handshake and the first message after it are all there. */
static bool has_first(const Reader *reader) {
    const char *end = memmem(reader->data, reader->length, "\r\n\r\n", 4);
    uint64_t length = 0;
    if (end == NULL) return false;
    size_t head = (size_t)(end - reader->data) + 4;
    if (memcmp(reader->data, "HTTP/1.1 101 ", 13) != 0) die("a handshake was answered: %.*s", (int)head, reader->data);
    Buffer rest = {(char *)reader->data + head, reader->length - head, 0};
    size_t before = header(&rest, &length);
    return before && rest.length >= before + length;
}

static void read_first(Reader *reader) {
    ssize_t got = recv(reader->fd, reader->data + reader->length, ROOM - reader->length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) die("a socket ended before its first message, or that has over %d bytes", ROOM);
    reader->length += (size_t)got;
    if (!has_first(reader)) return;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, reader->fd, NULL);
    reading--;
    stalled++;
    open_more();
}

static void open_all(void) {
    struct epoll_event events[HANDSHAKES];
    int64_t began = now();
    open_more();
    while (stalled < count) {
        int ready = epoll_wait(epoll_fd, events, HANDSHAKES, 100);
        for (int i = 0; i < ready; i++) read_first(&readers[events[i].data.u64]);
        if (now() > began + OPENING_LIMIT) die("only %d of %d sockets had a first message", stalled, count);
    }
    printf("{\"sockets\":%d,\"open_s\":%.3f}\n", count, (double)(now() - began) / 1e9);
    fflush(stdout);
}

static long bytes;
static int ended, reset;

static void read_on(Reader *reader) {
    ssize_t got = recv(reader->fd, reader->data, ROOM, MSG_DONTWAIT);
    if (got > 0) bytes += got;
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return;
    ended += got == 0;
    reset += got < 0;
    close(reader->fd);
    reader->is_open = false;
}

static void read_again(double seconds) {
    struct epoll_event events[HANDSHAKES];
    int64_t began = now(), until = began + (int64_t)(seconds * (double)SECOND);
    for (int i = 0; i < count; i++) {
        if (readers[i].is_open) watch(readers[i].fd, (uint64_t)i);
    }
    while (ended + reset < count && now() < until) {
        int ready = epoll_wait(epoll_fd, events, HANDSHAKES, 100);
        for (int i = 0; i < ready; i++) read_on(&readers[events[i].data.u64]);
    }
    printf("{\"ended\":%d,\"reset\":%d,\"open\":%d,\"bytes\":%ld,\"took_s\":%.3f}\n", ended, reset,
           count - ended - reset, bytes, (double)(now() - began) / 1e9);
    fflush(stdout);
}

int main(int argc, char **argv) {
    char command[256];
    double seconds;
    if (argc < 5) die("usage: stall PORT COUNT BYTES PATH...");
    prepare();
    port = numeric(argv[1], 1, 65535);
    count = numeric(argv[2], 1, 60000);
    receive_bytes = numeric(argv[3], 1, 1 << 24);
    paths = argv + 4;
    path_count = argc - 4;
    readers = calloc((size_t)count, sizeof(Reader));
    if (readers == NULL) die("out of memory");
    open_all();
    while (fgets(command, sizeof command, stdin) != NULL) {
        if (sscanf(command, "read %lf", &seconds) != 1) die("unknown command: %s", command);
        read_again(seconds);
    }
    return 0;
}
