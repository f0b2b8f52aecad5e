/* Clients that come and go, on 127.0.0.1, on one thread with epoll (Linux). Prints one line of JSON at the end.

   churn PORT COUNT AT_ONCE PATH...
       Connects COUNT times, the paths in turn, as fast as it is let, with at most AT_ONCE connections that wait for the
       gateway. Connection number N leaves at stage N % 5: at once, with half of the handshake sent, with all of it sent
       but nothing read, with the upgrade read, with the first snapshot read. Every second one leaves by a reset
       (SO_LINGER 0), the others orderly: by closing, and where there is a WebSocket with a close frame, then waiting for
       the end. Each stage has as many of both. */

#include "clients.h"

#define ROOM 16384 /* for the answer to the handshake and the first snapshot */
#define SOURCES 16 /* addresses to come from: a port that was closed orderly rests for a while */
#define EVENTS 256
#define WAIT_LIMIT (30 * SECOND)

enum { CONNECTED, HALF_ASKED, ASKED, UPGRADED, SHOWN, STAGES };
static const char *const STAGE_NAMES[STAGES] = {"connected", "half asked", "asked", "upgraded", "shown"};

typedef struct {
    int fd, stage;
    bool is_open, is_reset, is_leaving; /* leaving: the close frame is sent, and the end waited for */
    int64_t began;
    size_t length;
    char data[ROOM];
} Client;

static Client *clients;
static int *idle, idle_count, count, at_once, started, gone, port, path_count;
static char **paths;
static long left[STAGES][2], refused, lost, overdue;
static Series first;

static void leave(Client *client) {
    struct linger by_reset = {1, 0};
    if (client->is_reset) setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &by_reset, sizeof by_reset);
    close(client->fd);
    client->is_open = false;
    idle[idle_count++] = (int)(client - clients);
    gone++;
}

static void leave_as_meant(Client *client) {
    left[client->stage][client->is_reset]++;
    leave(client);
}

static void fail(Client *client, long *failures) {
    ++*failures;
    leave(client);
}

static void begin(void) {
    int number = started++;
    Client *client = &clients[idle[--idle_count]];
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          paths[number / (2 * STAGES) % path_count], port);
    client->stage = number % STAGES;
    client->is_reset = number % 2;
    client->is_leaving = false;
    client->is_open = true;
    client->length = 0;
    client->began = now();
    client->fd = connected(port, number % SOURCES);
    int asked = client->stage == CONNECTED ? 0 : client->stage == HALF_ASKED ? length / 2 : length;
    if (asked && !sent(client->fd, request, (size_t)asked)) die("a handshake could not be sent");
    if (client->stage < UPGRADED) leave_as_meant(client);
    else watch(client->fd, (uint64_t)(client - clients));
}

static void begin_more(void) {
    while (started < count && idle_count > 0) begin();
}

/* At its stage: by reset at once, else with the frame that says so, and the end is waited for. */
static void arrived(Client *client) {
    if (client->stage == SHOWN) add(&first, now() - client->began);
    if (client->is_reset) {
        leave_as_meant(client);
    } else if (control(client->fd, 0x8, (const unsigned char *)"\x03\xe8", 2)) {
        client->is_leaving = true;
    } else {
        fail(client, &lost);
    }
}

static void understand(Client *client) {
    const char *end = memmem(client->data, client->length, "\r\n\r\n", 4);
    if (end == NULL) return;
    if (memcmp(client->data, "HTTP/1.1 101 ", 13) != 0) {
        fail(client, &refused);
        return;
    }
    size_t head = (size_t)(end - client->data) + 4;
    bool is_shown = memmem(client->data + head, client->length - head, "\"type\":\"snapshot\"", 17) != NULL;
    if (client->stage == UPGRADED || is_shown) arrived(client);
}

static void readable(Client *client) {
    size_t length = client->is_leaving ? 0 : client->length;
    ssize_t got = recv(client->fd, client->data + length, ROOM - length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (client->is_leaving) {
        if (got > 0) return;
        if (got == 0) leave_as_meant(client);
        else fail(client, &lost);
        return;
    }
    if (got <= 0) {
        fail(client, &lost);
        return;
    }
    client->length += (size_t)got;
    understand(client);
}

static void give_up(void) {
    int64_t before = now() - WAIT_LIMIT;
    for (int i = 0; i < at_once; i++) {
        if (!clients[i].is_open || clients[i].began > before) continue;
        fail(&clients[i], &overdue);
    }
}

static void print_result(double seconds) {
    long resets = 0;
    printf("{\"connections\":%d,\"seconds\":%.3f,\"left\":{", gone, seconds);
    for (int stage = 0; stage < STAGES; stage++) {
        resets += left[stage][1];
        printf("%s\"%s\":%ld", stage ? "," : "", STAGE_NAMES[stage], left[stage][0] + left[stage][1]);
    }
    printf("},\"resets\":%ld,\"refused\":%ld,\"lost\":%ld,\"overdue\":%ld,", resets, refused, lost, overdue);
    print_quantiles("first_us", &first);
    printf(",\"cpu_s\":%.3f}\n", own_cpu_s());
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    if (argc < 5) die("usage: churn PORT COUNT AT_ONCE PATH...");
    prepare();
    port = numeric(argv[1], 1, 65535);
    count = numeric(argv[2], 1, 100000000);
    at_once = numeric(argv[3], 1, 10000);
    paths = argv + 4;
    path_count = argc - 4;
    clients = calloc((size_t)at_once, sizeof(Client));
    idle = calloc((size_t)at_once, sizeof(int));
    if (clients == NULL || idle == NULL) die("out of memory");
    while (idle_count < at_once) {
        idle[idle_count] = idle_count;
        idle_count++;
    }
    int64_t began = now(), looked = began;
    while (gone < count) {
        begin_more();
        int ready = epoll_wait(epoll_fd, events, EVENTS, gone < count ? 1000 : 0);
        for (int i = 0; i < ready; i++) {
            Client *client = &clients[events[i].data.u64];
            if (client->is_open) readable(client);
        }
        if (now() < looked + SECOND) continue;
        looked = now();
        give_up();
    }
    print_result((double)(now() - began) / 1e9);
    return 0;
}
