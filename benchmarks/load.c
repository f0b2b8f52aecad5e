/* Load for the gateway on 127.0.0.1, on one thread with epoll (Linux). Prints one line of JSON per result.

   load sockets PORT COUNT INTERVAL_S SYMBOL...
       Opens COUNT WebSockets on /ws/positions/SYMBOL, the symbols in turn, and prints a line when each has had its first
       snapshot. Then obeys the lines on stdin until that ends, one at a time, and answers each with a line:
         measure SECONDS      what arrived in so many seconds from now: see measured()
         wait PART 0|1 SECONDS
                              how long until the newest snapshot of every socket names PART as stale (1) or not (0)
   load requests PORT RATE SECONDS PATH...
       Sends RATE requests a second, the paths in turn, at fixed times whatever becomes of the answers (an open loop), and
       counts each latency from the time the request was due: a server that stalls cannot hide it by slowing us down.

   Times are nanoseconds of CLOCK_MONOTONIC inside, and named for their unit outside. */

#include "clients.h"
#include <sys/timerfd.h>

#define EVENTS 64
#define CHUNK 16384
#define MAX_MESSAGE (16 << 20)

/* ---- What both kinds of load need. */

static void drop(Buffer *buffer, size_t length) {
    buffer->length -= length;
    memmove(buffer->data, buffer->data + length, buffer->length);
}

/* Appends what has arrived: >0 bytes, 0 at the end, -1 when there is nothing now, -2 for a broken connection. */
static ssize_t receive(int fd, Buffer *buffer) {
    if (buffer->capacity - buffer->length < CHUNK / 4) {
        buffer->capacity = buffer->capacity ? buffer->capacity * 2 : CHUNK;
        if (buffer->capacity > 2 * MAX_MESSAGE) die("a message is over %d bytes", MAX_MESSAGE);
        buffer->data = resized(buffer->data, buffer->capacity);
    }
    ssize_t got = recv(fd, buffer->data + buffer->length, buffer->capacity - buffer->length, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR ? -1 : -2;
    buffer->length += got;
    return got;
}

/* ---- WebSockets. */

#define HANDSHAKES 64 /* at once */
#define OPENING_LIMIT (120 * SECOND)
#define CODES 5000
#define EPOCH 15 /* characters at most */
#define EPOCHS 256
#define EARLY (SECOND / 500) /* by which a snapshot may be ahead of its beat: the beats are measured too */

enum { POSITION, BALANCE, PRICE, PARTS };
static const char *const PART_NAMES[PARTS] = {"position", "balance", "price"};

typedef struct {
    int fd;
    bool is_open, is_upgraded, is_seen, is_stale[PARTS];
    int64_t connected_at, seen_at, sequence;
    char epoch[EPOCH + 1];
    int64_t phase;   /* a time of one of its beats, 0 while unknown */
    int64_t last_at; /* of the newest snapshot in the window */
    Buffer in;
    Series arrivals; /* of snapshots in the window and the grace after it */
} Socket;

static struct {
    Socket *sockets;
    int count, started, upgrading, seen, open, port, symbol_count;
    char **symbols;
    double interval_s;
    Series first; /* from connecting to the first snapshot */
    int64_t begin, end, longest_gap;
    bool is_measuring;
    long delivered, out_of_order, stale[PARTS], statuses, heartbeats, pings, errors, bytes, unknown;
    int closes[CODES]; /* since the start, by code; 1006 for an end without one */
} ws;

static void ended(Socket *socket, int code) {
    if (!socket->is_open) return;
    close(socket->fd);
    socket->is_open = false;
    ws.open--;
    ws.closes[code]++;
    if (!socket->is_upgraded) die("a handshake failed: %.*s", (int)socket->in.length, socket->in.data);
    if (!socket->is_seen) die("a socket was closed with %d before its first snapshot", code);
}

static void open_one(void) {
    Socket *socket = &ws.sockets[ws.started];
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET /ws/positions/%s?interval=%g HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          ws.symbols[ws.started % ws.symbol_count], ws.interval_s, ws.port);
    socket->connected_at = now();
    socket->fd = connected(ws.port, ws.started / PER_SOURCE);
    socket->is_open = true;
    watch(socket->fd, (uint64_t)ws.started);
    ws.started++;
    ws.upgrading++;
    ws.open++;
    if (!sent(socket->fd, request, (size_t)length)) die("a handshake could not be sent");
}

static void open_more(void) {
    while (ws.started < ws.count && ws.upgrading < HANDSHAKES) open_one();
}

static void upgraded(Socket *socket) {
    char *end = memmem(socket->in.data, socket->in.length, "\r\n\r\n", 4);
    if (end == NULL) return;
    size_t length = (size_t)(end - socket->in.data) + 4;
    bool is_right = memcmp(socket->in.data, "HTTP/1.1 101 ", 13) == 0;
    if (!is_right || !memmem(socket->in.data, length, ACCEPT, strlen(ACCEPT)))
        die("a handshake was answered: %.*s", (int)socket->in.length, socket->in.data);
    drop(&socket->in, length);
    socket->is_upgraded = true;
    ws.upgrading--;
    open_more();
}

static void answer(Socket *socket, int opcode, const unsigned char *payload, size_t length) {
    if (!control(socket->fd, opcode, payload, length)) ws.errors++;
}

static const char *last_of(const char *text, size_t length, const char *wanted) {
    const char *found = NULL, *end = text + length;
    size_t size = strlen(wanted);
    while ((text = memmem(text, (size_t)(end - text), wanted, size)) != NULL) {
        found = text;
        text += size;
    }
    return found;
}

static void note_stale(Socket *socket, const char *text, size_t length, bool is_counted) {
    const char *list = last_of(text, length, "\"stale\":[");
    const char *end = list ? memchr(list, ']', (size_t)(text + length - list)) : NULL;
    if (end == NULL) {
        ws.errors++;
        return;
    }
    list += strlen("\"stale\":["); /* the name of a part may not be taken from the key itself */
    for (int part = 0; part < PARTS; part++) {
        socket->is_stale[part] = memmem(list, (size_t)(end - list), PART_NAMES[part], strlen(PART_NAMES[part])) != NULL;
        ws.stale[part] += is_counted && socket->is_stale[part];
    }
}

static void note_sequence(Socket *socket, const char *text, size_t length) {
    const char *found = memmem(text, length, "\"seq\":", 6);
    int64_t sequence = found ? strtoll(found + 6, NULL, 10) : 0;
    ws.out_of_order += sequence <= socket->sequence;
    socket->sequence = sequence;
}

/* Which process's life the socket belongs to; it cannot change, and seq is its own. */
static void note_epoch(Socket *socket, const char *text, size_t length) {
    char epoch[EPOCH + 1] = "";
    const char *found = memmem(text, length, "\"epoch\":\"", 9);
    if (found) sscanf(found + 9, "%15[0-9a-z]", epoch);
    ws.errors += !*epoch || (*socket->epoch && strcmp(epoch, socket->epoch) != 0);
    memcpy(socket->epoch, epoch, sizeof epoch);
}

static void snapshot(Socket *socket, const char *text, size_t length, int64_t at) {
    note_epoch(socket, text, length);
    note_sequence(socket, text, length);
    note_stale(socket, text, length, at < ws.end);
    socket->seen_at = at;
    if (!socket->is_seen) {
        socket->is_seen = true;
        ws.seen++;
        add(&ws.first, at - socket->connected_at);
    }
    if (!ws.is_measuring) return;
    if (socket->last_at && at - socket->last_at > ws.longest_gap) ws.longest_gap = at - socket->last_at;
    socket->last_at = at;
    ws.delivered += at < ws.end;
    add(&socket->arrivals, at);
}

static bool begins(const char *text, size_t length, const char *wanted) {
    return length >= strlen(wanted) && memcmp(text, wanted, strlen(wanted)) == 0;
}

static void message(Socket *socket, const char *text, size_t length, int64_t at) {
    ws.bytes += at < ws.end ? (long)length : 0;
    if (begins(text, length, "{\"type\":\"snapshot\"")) snapshot(socket, text, length, at);
    else if (begins(text, length, "{\"type\":\"status\"")) ws.statuses += at < ws.end;
    else if (begins(text, length, "{\"type\":\"heartbeat\"")) ws.heartbeats++;
    else ws.unknown++;
}

static void frame(Socket *socket, int first, const unsigned char *payload, size_t length, int64_t at) {
    switch (first) {
    case 0x81: message(socket, (const char *)payload, length, at); break;
    case 0x89:
        ws.pings++;
        answer(socket, 0xa, payload, length);
        break;
    case 0x8a: break;
    case 0x88: {
        int code = length >= 2 ? payload[0] << 8 | payload[1] : 1005;
        answer(socket, 0x8, payload, length < 125 ? length : 125);
        ended(socket, code < CODES ? code : 1002);
        break;
    }
    default: /* fragments, binary, reserved bits: the gateway sends none */
        ws.errors++;
        ended(socket, 1002);
    }
}

static void frames(Socket *socket, int64_t at) {
    size_t done = 0;
    while (socket->is_open) {
        uint64_t length = 0;
        Buffer rest = {socket->in.data + done, socket->in.length - done, 0};
        size_t before = header(&rest, &length);
        if (before && ((unsigned char)rest.data[1] & 0x80 || length > MAX_MESSAGE)) {
            ws.errors++;
            ended(socket, 1002); /* servers do not mask */
            return;
        }
        if (!before || rest.length < before + length) break;
        frame(socket, (unsigned char)rest.data[0], (unsigned char *)rest.data + before, length, at);
        done += before + length;
    }
    if (done) drop(&socket->in, done);
}

static void readable(Socket *socket) {
    ssize_t got = receive(socket->fd, &socket->in);
    if (got == -1) return;
    if (got <= 0) {
        ended(socket, 1006);
        return;
    }
    if (!socket->is_upgraded) upgraded(socket);
    if (socket->is_upgraded) frames(socket, now());
}

#define STDIN_MARK UINT64_MAX

static Buffer commands;

/* Serves the sockets until `until`, or a whole line is in `commands`. False where stdin has ended. */
static bool serve(int64_t until) {
    struct epoll_event events[EVENTS];
    int64_t left = until - now();
    int timeout_ms = left <= 0 ? 0 : left > SECOND ? 1000 : (int)(left / 1000000) + 1;
    int count = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == STDIN_MARK) {
            if (commands.capacity < CHUNK) commands.data = resized(commands.data, commands.capacity = CHUNK);
            ssize_t got = read(STDIN_FILENO, commands.data + commands.length, commands.capacity - commands.length);
            if (got <= 0) return false;
            commands.length += (size_t)got;
        } else if (ws.sockets[events[i].data.u64].is_open) {
            readable(&ws.sockets[events[i].data.u64]);
        }
    }
    return true;
}

static void print_closes(void) {
    const char *comma = "";
    printf("\"closes\":{");
    for (int code = 0; code < CODES; code++) {
        if (ws.closes[code] == 0) continue;
        printf("%s\"%d\":%d", comma, code, ws.closes[code]);
        comma = ",";
    }
    printf("}");
}

/* When a socket's beats are: the earliest of its arrivals, each less a multiple of the interval. The gateway keeps to it
   for the socket's life, so the first window, where nothing is made to hang, says it for the later ones. */
static int64_t phase_of(const Series *arrivals, int64_t interval) {
    int64_t phase = arrivals->values[0];
    for (size_t i = 1; i < arrivals->length; i++) {
        int64_t beat = (arrivals->values[i] - arrivals->values[0] + interval / 2) / interval;
        int64_t without = arrivals->values[i] - beat * interval;
        if (without < phase) phase = without;
    }
    return phase;
}

/* How many of a socket's `due` beats in the window had their snapshot before the next beat, and how late. */
static long beats_met(Socket *socket, long due, int64_t interval, Series *late) {
    const Series *arrivals = &socket->arrivals;
    if (arrivals->length == 0) return 0;
    if (!socket->phase) socket->phase = phase_of(arrivals, interval);
    int64_t ahead = ((socket->phase - ws.begin) % interval + interval) % interval;
    int64_t first = ws.begin + ahead - EARLY;
    long met = 0, last = -1;
    for (size_t i = 0; i < arrivals->length; i++) {
        int64_t since = arrivals->values[i] - first;
        long beat = since < 0 ? -1 : (long)(since / interval);
        if (beat <= last || beat >= due) continue;
        int64_t lateness = since - beat * interval - EARLY;
        add(late, lateness > 0 ? lateness : 0);
        met++;
        last = beat;
    }
    return met;
}

static void print_beats(double seconds) {
    int64_t interval = (int64_t)(ws.interval_s * (double)SECOND);
    long due = (long)(seconds / ws.interval_s + 1e-6), met = 0, fewest = due;
    Series late = {0};
    for (int i = 0; i < ws.count; i++) {
        long of_one = beats_met(&ws.sockets[i], due, interval, &late);
        met += of_one;
        if (of_one < fewest) fewest = of_one;
    }
    printf("\"due\":%ld,\"on_time\":%ld,\"fewest\":%ld,", due * ws.count, met, fewest);
    print_quantiles("late_us", &late);
    free(late.values);
}

/* How many open sockets each epoch has: how the kernel has spread them over the processes. */
static void print_epochs(void) {
    static const char *epochs[EPOCHS];
    static int counts[EPOCHS];
    int known = 0;
    for (int i = 0; i < ws.count; i++) {
        if (!ws.sockets[i].is_open) continue;
        int epoch = 0;
        while (epoch < known && strcmp(epochs[epoch], ws.sockets[i].epoch) != 0) epoch++;
        if (epoch == EPOCHS) die("more than %d epochs", EPOCHS);
        if (epoch == known) {
            epochs[known] = ws.sockets[i].epoch;
            counts[known++] = 0;
        }
        counts[epoch]++;
    }
    printf("\"epochs\":{");
    for (int epoch = 0; epoch < known; epoch++)
        printf("%s\"%s\":%d", epoch ? "," : "", epochs[epoch], counts[epoch]);
    printf("}");
}

static void forget(void) {
    for (int i = 0; i < ws.count; i++) {
        ws.sockets[i].arrivals.length = 0;
        ws.sockets[i].last_at = 0;
    }
    ws.longest_gap = ws.delivered = ws.out_of_order = ws.statuses = ws.heartbeats = ws.pings = ws.bytes = 0;
    ws.errors = ws.unknown = 0;
    memset(ws.stale, 0, sizeof ws.stale);
}

/* Counts for so many seconds, and an interval longer for the last beats. */
static bool measured(double seconds) {
    double cpu_s = own_cpu_s();
    forget();
    ws.begin = now();
    ws.end = ws.begin + (int64_t)(seconds * (double)SECOND);
    ws.is_measuring = true;
    int64_t until = ws.end + (int64_t)(ws.interval_s * (double)SECOND);
    while (now() < until) {
        if (!serve(until)) return false;
    }
    ws.is_measuring = false;
    printf("{\"sockets\":%d,\"open\":%d,\"delivered\":%ld,", ws.count, ws.open, ws.delivered);
    print_beats(seconds);
    printf(",\"longest_gap_ms\":%.1f,\"out_of_order\":%ld,", (double)ws.longest_gap / 1e6, ws.out_of_order);
    printf("\"stale\":{\"position\":%ld,\"balance\":%ld,\"price\":%ld},", ws.stale[0], ws.stale[1], ws.stale[2]);
    printf("\"statuses\":%ld,\"heartbeats\":%ld,\"pings\":%ld,\"bytes\":%ld,", ws.statuses, ws.heartbeats, ws.pings,
           ws.bytes);
    printf("\"protocol_errors\":%ld,\"cpu_s\":%.3f,", ws.errors + ws.unknown, own_cpu_s() - cpu_s);
    print_epochs();
    printf(",");
    print_closes();
    printf("}\n");
    return true;
}

static bool is_agreed(int part, bool is_stale, int64_t since) {
    for (int i = 0; i < ws.count; i++) {
        Socket *socket = &ws.sockets[i];
        if (socket->is_open && (socket->seen_at < since || socket->is_stale[part] != is_stale)) return false;
    }
    return true;
}

static bool waited(const char *name, bool is_stale, double seconds) {
    int part = 0;
    while (part < PARTS && strcmp(PART_NAMES[part], name) != 0) part++;
    if (part == PARTS) die("no part is called %s", name);
    int64_t since = now(), until = since + (int64_t)(seconds * (double)SECOND);
    bool agreed = false;
    while (!(agreed = is_agreed(part, is_stale, since)) && now() < until) {
        if (!serve(until)) return false;
    }
    printf("{\"agreed\":%s,\"after_s\":%.3f}\n", agreed ? "true" : "false", (double)(now() - since) / 1e9);
    return true;
}

static bool obey(const char *line) {
    char name[16];
    double seconds;
    int is_stale;
    if (sscanf(line, "measure %lf", &seconds) == 1) return measured(seconds);
    if (sscanf(line, "wait %15s %d %lf", name, &is_stale, &seconds) == 3) return waited(name, is_stale, seconds);
    die("unknown command: %s", line);
    return false;
}

static bool next_command(void) {
    char *end;
    while (commands.length == 0 || (end = memchr(commands.data, '\n', commands.length)) == NULL) {
        if (!serve(INT64_MAX)) return false;
    }
    *end = 0;
    size_t length = (size_t)(end - commands.data) + 1;
    char *line = strndup(commands.data, length);
    drop(&commands, length);
    bool goes_on = obey(line);
    free(line);
    fflush(stdout);
    return goes_on;
}

static void open_all(void) {
    int64_t began = now();
    open_more();
    while (ws.seen < ws.count) {
        if (!serve(began + OPENING_LIMIT)) exit(0);
        if (now() > began + OPENING_LIMIT) die("only %d of %d sockets had a first snapshot", ws.seen, ws.count);
    }
    printf("{\"sockets\":%d,\"open_s\":%.3f,", ws.count, (double)(now() - began) / 1e9);
    print_quantiles("first_us", &ws.first);
    printf("}\n");
    fflush(stdout);
}

static void say_goodbye(void) {
    for (int i = 0; i < ws.count; i++) {
        if (ws.sockets[i].is_open) answer(&ws.sockets[i], 0x8, (const unsigned char *)"\x03\xe8", 2);
    }
    int64_t until = now() + 2 * SECOND;
    while (ws.open > 0 && now() < until) serve(until);
}

static void sockets(int argc, char **argv) {
    ws.port = numeric(argv[2], 1, 65535);
    ws.count = numeric(argv[3], 1, 60000);
    ws.interval_s = atof(argv[4]);
    if (!(ws.interval_s >= 0.1 && ws.interval_s <= 60)) die("the interval is from 0.1 to 60 s");
    ws.symbols = argv + 5;
    ws.symbol_count = argc - 5;
    ws.sockets = calloc((size_t)ws.count, sizeof(Socket));
    if (ws.sockets == NULL) die("out of memory");
    watch(STDIN_FILENO, STDIN_MARK);
    open_all();
    while (next_command()) {}
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    say_goodbye();
}

/* ---- Requests in an open loop. */

#define CONNECTIONS 32
#define PATHS 16
#define ANSWERS_LIMIT (15 * SECOND) /* after the last request */
#define TIMER_MARK UINT64_MAX

typedef struct {
    int fd;
    long request; /* the one under way, -1 for none */
    Buffer in;
} Connection;

static struct {
    Connection connections[CONNECTIONS];
    int idle[CONNECTIONS], idle_from, idle_count; /* first in, first out, so that none idles long enough to be closed */
    int port, rate, path_count, timer_fd;
    char **paths;
    long total, due, queued, answered, stale, failed, reconnected;
    int statuses[600];
    int64_t begin;
    Series latencies[PATHS], sent_late;
} http;

static int64_t due_at(long request) { return http.begin + request * SECOND / http.rate; }

static void rest(int index) { http.idle[(http.idle_from + http.idle_count++) % CONNECTIONS] = index; }

static void reconnect(int index) {
    Connection *connection = &http.connections[index];
    if (connection->fd > 0) {
        close(connection->fd);
        http.reconnected++;
    }
    connection->fd = connected(http.port, 0);
    connection->in.length = 0;
    connection->request = -1;
    watch(connection->fd, (uint64_t)index);
}

static bool ask(int index, long request) {
    Connection *connection = &http.connections[index];
    char text[512];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n",
                          http.paths[request % http.path_count], http.port);
    connection->request = request;
    return sent(connection->fd, text, (size_t)length);
}

/* Sends what is due while a connection is free; what is not sent waits, and its latency counts on. */
static void send_due(void) {
    while (http.queued < http.due && http.idle_count > 0) {
        int index = http.idle[http.idle_from];
        http.idle_from = (http.idle_from + 1) % CONNECTIONS;
        http.idle_count--;
        if (!ask(index, http.queued)) {
            reconnect(index);
            if (!ask(index, http.queued)) die("a request could not be sent");
        }
        http.queued++;
    }
}

static void lost(int index) {
    bool was_asked = http.connections[index].request >= 0;
    http.failed += was_asked;
    reconnect(index);
    if (was_asked) rest(index);
}

static void answered(int index, const char *head, const char *body, size_t length) {
    Connection *connection = &http.connections[index];
    int status = atoi(head + strlen("HTTP/1.1 "));
    if (status < 100 || status > 599) die("an answer begins with %.40s", head);
    add(&http.latencies[connection->request % http.path_count], now() - due_at(connection->request));
    http.statuses[status]++;
    http.stale += memmem(body, length, "\"stale\":true", 12) != NULL;
    http.answered++;
    connection->request = -1;
    rest(index);
}

static void response(int index) {
    Connection *connection = &http.connections[index];
    Buffer *in = &connection->in;
    char *end = memmem(in->data, in->length, "\r\n\r\n", 4);
    if (end == NULL) return;
    *end = 0;
    char *field = strcasestr(in->data, "\ncontent-length:");
    if (field == NULL) die("an answer has no Content-Length: %s", in->data);
    *end = '\r';
    size_t head = (size_t)(end - in->data) + 4, length = (size_t)atol(field + strlen("\ncontent-length:"));
    if (in->length < head + length) return;
    answered(index, in->data, in->data + head, length);
    drop(in, head + length);
}

static void arrived(int index) {
    Connection *connection = &http.connections[index];
    ssize_t got = receive(connection->fd, &connection->in);
    if (got == -1) return;
    if (got <= 0) lost(index);
    else if (connection->request >= 0) response(index);
    else die("an answer to nothing arrived");
}

static void set_timer(void) {
    int64_t at = due_at(http.due);
    struct itimerspec when = {.it_value = {at / SECOND, at % SECOND}};
    timerfd_settime(http.timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void tick(void) {
    uint64_t expired;
    if (read(http.timer_fd, &expired, sizeof expired) < 0) return;
    for (int64_t at = now(); http.due < http.total && due_at(http.due) <= at; http.due++)
        add(&http.sent_late, at - due_at(http.due));
    if (http.due < http.total) set_timer();
}

static void print_requests(double cpu_s) {
    const char *comma = "";
    printf("{\"requests\":%ld,\"answered\":%ld,\"failed\":%ld,\"stale\":%ld,\"reconnected\":%ld,\"cpu_s\":%.3f,",
           http.total, http.answered, http.failed, http.stale, http.reconnected, cpu_s);
    print_quantiles("sent_late_us", &http.sent_late);
    printf(",\"statuses\":{");
    for (int status = 100; status < 600; status++) {
        if (http.statuses[status] == 0) continue;
        printf("%s\"%d\":%d", comma, status, http.statuses[status]);
        comma = ",";
    }
    printf("},\"latency_us\":{");
    for (int path = 0; path < http.path_count; path++) {
        if (path) printf(",");
        print_quantiles(http.paths[path], &http.latencies[path]);
    }
    printf("}}\n");
}

static void requests(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    http.port = numeric(argv[2], 1, 65535);
    http.rate = numeric(argv[3], 1, 100000);
    http.total = (long)(http.rate * atof(argv[4]));
    http.paths = argv + 5;
    http.path_count = argc - 5;
    if (http.path_count > PATHS) die("at most %d paths", PATHS);
    for (int i = 0; i < CONNECTIONS; i++) {
        reconnect(i);
        rest(i);
    }
    http.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(http.timer_fd, TIMER_MARK);
    http.begin = now() + SECOND / 10;
    set_timer();
    int64_t until = due_at(http.total) + ANSWERS_LIMIT;
    while (http.answered + http.failed < http.total && now() < until) {
        int count = epoll_wait(epoll_fd, events, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == TIMER_MARK) tick();
            else arrived((int)events[i].data.u64);
        }
        send_due();
    }
    print_requests(own_cpu_s());
}

int main(int argc, char **argv) {
    prepare();
    if (argc > 5 && strcmp(argv[1], "sockets") == 0) sockets(argc, argv);
    else if (argc > 5 && strcmp(argv[1], "requests") == 0) requests(argc, argv);
    else die("usage: load sockets PORT COUNT INTERVAL_S SYMBOL... | load requests PORT RATE SECONDS PATH...");
    return 0;
}
