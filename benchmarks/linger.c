/* Clients that take their time, on 127.0.0.1, on one thread with epoll (Linux). Prints one line of JSON per result.

   linger PORT COUNT head|body|answer PAUSE_MS PATH
       Opens COUNT connections, 500 a second, and on each asks for PATH, a byte every PAUSE_MS:
         head      a GET whose head never ends
         body      a POST whose head is sent at once, and whose body never ends
         answer    four GETs sent at once over a connection with a small receive buffer, and read byte by byte: what a
                   kernel takes of one answer for somebody who does not read it, it does not take of four
       Who is sent away comes back at once. Prints a line when all have come, and obeys the lines on stdin until that ends:
         count        how many are there, how many were sent away so far, and how long these had stayed

   Times are nanoseconds of CLOCK_MONOTONIC inside, and named for their unit outside. */

#include "clients.h"

#define EVENTS 64
#define ROOM 512         /* of an answer only the status is looked at */
#define RECEIVE_BYTES 4096 /* SO_RCVBUF: what is not read soon waits on the other side */
#define BODY_BYTES 60000 /* promised */
#define ANSWERS 4
#define BETWEEN (SECOND / 500) /* two that come: what is to be shown is how slow they are, not how many at once */
#define AWAY (SECOND / 10)
#define STDIN_MARK UINT64_MAX

enum { HEAD, BODY, ANSWER };

typedef struct {
    int fd;
    bool is_open;
    int64_t opened_at, next_at;
} Client;

static Client *clients;
static int count, port, kind, here, ended, reset;
static int64_t pause_ns;
static const char *path;
static int statuses[600];
static Series lasted;

static void open_one(int index) {
    Client *client = &clients[index];
    char text[1024];
    int small = RECEIVE_BYTES;
    const char *end = kind == HEAD ? "X-Slow: " : kind == ANSWER ? "\r\n" : "Content-Type: application/json\r\n";
    int length = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s",
                          kind == BODY ? "POST" : "GET", path, port, end);
    if (kind == BODY)
        length += snprintf(text + length, sizeof text - (size_t)length, "Content-Length: %d\r\n\r\n", BODY_BYTES);
    client->fd = unconnected(index / PER_SOURCE);
    /* Before it connects: a window that was offered once is not taken back. */
    if (kind == ANSWER) setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    connect_to(port, client->fd);
    client->is_open = true;
    client->opened_at = now();
    client->next_at = client->opened_at + pause_ns;
    /* Who reads slowly is told of the end only, at once by a reset, else once he has read all before it. */
    struct epoll_event event = {.events = kind == ANSWER ? EPOLLRDHUP : EPOLLIN, .data.u64 = (uint64_t)index};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0) die("epoll: %s", strerror(errno));
    here++;
    for (int i = 0; i < (kind == ANSWER ? ANSWERS : 1); i++)
        if (!sent(client->fd, text, (size_t)length)) die("a request could not be sent");
}

static void gone(Client *client, bool is_reset) {
    close(client->fd);
    client->is_open = false;
    client->next_at = now() + AWAY;
    here--;
    ended += !is_reset;
    reset += is_reset;
    add(&lasted, now() - client->opened_at);
}

static void read_some(Client *client, size_t most) {
    char text[ROOM];
    ssize_t got = recv(client->fd, text, most, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        gone(client, got < 0);
        return;
    }
    if (kind != ANSWER && got > 12 && memcmp(text, "HTTP/1.", 7) == 0) {
        int status = atoi(text + 9);
        statuses[status >= 100 && status < 600 ? status : 0]++;
    }
}

static void happened(Client *client, uint32_t events) {
    if (kind != ANSWER) read_some(client, ROOM);
    else if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) gone(client, events & EPOLLERR);
}

static void go_on(Client *client) {
    if (kind == ANSWER) read_some(client, 1);
    else if (send(client->fd, "[", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN) gone(client, true);
}

static void all_go_on(void) {
    int64_t at = now();
    for (int i = 0; i < count; i++) {
        if (clients[i].next_at > at) continue;
        if (clients[i].is_open) {
            clients[i].next_at = at + pause_ns;
            go_on(&clients[i]);
        } else open_one(i);
    }
}

static void print_count(void) {
    const char *comma = "";
    printf("{\"open\":%d,\"ended\":%d,\"reset\":%d,\"statuses\":{", here, ended, reset);
    for (int status = 0; status < 600; status++) {
        if (statuses[status] == 0) continue;
        printf("%s\"%d\":%d", comma, status, statuses[status]);
        comma = ",";
    }
    printf("},");
    print_quantiles("lasted_us", &lasted);
    printf("}\n");
    fflush(stdout);
}

/* False where stdin has ended. */
static bool obeyed(void) {
    char line[64];
    ssize_t got = read(STDIN_FILENO, line, sizeof line);
    if (got <= 0) return false;
    if (strncmp(line, "count", 5) != 0) die("unknown command: %.*s", (int)got, line);
    print_count();
    return true;
}

int main(int argc, char **argv) {
    static const char *const KINDS[] = {"head", "body", "answer"};
    struct epoll_event events[EVENTS];
    bool have_come = false;
    if (argc != 6) die("usage: linger PORT COUNT head|body|answer PAUSE_MS PATH");
    prepare();
    port = numeric(argv[1], 1, 65535);
    count = numeric(argv[2], 1, 60000);
    while (kind <= ANSWER && strcmp(argv[3], KINDS[kind]) != 0) kind++;
    if (kind > ANSWER) die("no kind is called %s", argv[3]);
    pause_ns = (int64_t)numeric(argv[4], 1, 3600000) * (SECOND / 1000);
    path = argv[5];
    clients = calloc((size_t)count, sizeof(Client));
    if (clients == NULL) die("out of memory");
    int64_t began = now();
    for (int i = 0; i < count; i++) clients[i].next_at = began + i * BETWEEN;
    watch(STDIN_FILENO, STDIN_MARK);
    while (true) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, 10);
        for (int i = 0; i < ready; i++) {
            uint64_t mark = events[i].data.u64;
            if (mark == STDIN_MARK) {
                if (!obeyed()) return 0;
            } else if (clients[mark].is_open) happened(&clients[mark], events[i].events);
        }
        all_go_on();
        if (!have_come && clients[count - 1].opened_at) {
            have_come = true;
            printf("{\"connections\":%d,\"open_s\":%.3f}\n", count, (double)(now() - began) / 1e9);
            fflush(stdout);
        }
    }
}
