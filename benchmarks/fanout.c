/* Readers of a broadcast on 127.0.0.1, on one thread with epoll (Linux). Prints one line of JSON per result.

   fanout PORT COUNT PATH...
       Opens COUNT WebSockets, the paths in turn, and prints a line when each has had its first message. Then obeys the
       lines on stdin until that ends, one at a time, and answers each with a line:
         measure SECONDS      counts what arrives in so many seconds from now
         spread SECONDS       the same, and for each sequence number of a path the time from the first socket that
                              had it to the last one, where all of them did; and to each of them (delivery)

   With SAY in the environment each socket sends that text once it is open, such as a subscription of many channels; an
   answer that is no snapshot is its first message. Sequence numbers are then looked at by channel, and the delivery is
   the time since the message's own timestamp_ms, by the machine's clock. With STAMP in the environment, such as
   "bid_size":", it is the time since the nanoseconds of the monotonic clock that follow that text; where another number
   does, nothing is counted.

   While it measures it looks at its sockets every 20 ms instead of being woken for each message: waking a reader is no
   part of what a server's frame costs, and so this one core reads faster than any server writes. For the spread it is
   woken. Times are nanoseconds inside. */

#include "clients.h"

#define HANDSHAKES 64 /* at once */
#define OPENING_LIMIT (120 * SECOND)
#define LOOK_US 20000
#define CHANNELS 1021 /* a prime: names are told apart by their remainder, and counted where they cannot be */
#define MEMORY 1024 /* of sequence numbers, per path */
#define STDIN_MARK UINT64_MAX

typedef struct {
    int fd;
    bool is_open, is_upgraded, is_seen;
    int64_t connected_at, sequence;
    int64_t *sequences; /* by channel, where many are subscribed to */
    Buffer rest; /* the beginning of what has not arrived whole */
} Reader;

/* A sequence number on its way to all sockets of its path. */
typedef struct {
    int64_t sequence, first, last;
    int count;
} Change;

static Reader *readers;
static int count, started, upgrading, seen, open_count, port, path_count;
static char **paths;
static Series first_message, spreads, deliveries;
static Change *changes; /* MEMORY for each path */
static bool is_spread;
static long snapshots, others, bytes, out_of_order, errors, incomplete;
static const char *say, *stamp;
static char commands[256];
static char scratch[1 << 18];

static int on_path(int path) { return count / path_count + (path < count % path_count); }

static void ended(Reader *reader) {
    if (!reader->is_seen) die("a socket ended before its first message: %.*s", (int)reader->rest.length, reader->rest.data);
    close(reader->fd);
    reader->is_open = false;
    open_count--;
}

static void open_one(void) {
    Reader *reader = &readers[started];
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          paths[started % path_count], port);
    reader->connected_at = now();
    reader->fd = connected(port, started / PER_SOURCE);
    reader->is_open = true;
    watch(reader->fd, (uint64_t)started);
    started++;
    upgrading++;
    open_count++;
    if (!sent(reader->fd, request, (size_t)length)) die("a handshake could not be sent");
}

static void open_more(void) {
    while (started < count && upgrading < HANDSHAKES) open_one();
}

/* How many bytes the answer to the handshake has, 0 while it is not all there. */
static size_t upgraded(Reader *reader, const char *data, size_t length) {
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t head = (size_t)(end - data) + 4;
    if (memcmp(data, "HTTP/1.1 101 ", 13) != 0 || !memmem(data, head, ACCEPT, strlen(ACCEPT)))
        die("a handshake was answered: %.*s", (int)length, data);
    reader->is_upgraded = true;
    upgrading--;
    if (say != NULL && !text_sent(reader->fd, say)) die("what was to be said could not be sent");
    open_more();
    return head;
}

static void forget_change(const Change *change, int path) {
    if (change->count == 0) return;
    if (change->count == on_path(path)) add(&spreads, change->last - change->first);
    else incomplete++;
}

static void note_change(int path, int64_t sequence, int64_t at) {
    Change *change = &changes[path * MEMORY + sequence % MEMORY];
    if (change->sequence != sequence) {
        forget_change(change, path);
        *change = (Change){.sequence = sequence, .first = at};
    }
    change->last = at;
    change->count++;
    add(&deliveries, at - change->first);
}

static int64_t number_after(const char *text, size_t length, const char *name) {
    const char *found = memmem(text, length < 512 ? length : 512, name, strlen(name));
    return found == NULL ? -1 : strtoll(found + strlen(name), NULL, 10);
}

/* Where the last sequence of the message's channel is kept. */
static int64_t *sequence_of(Reader *reader, const char *text, size_t length) {
    static const char name[] = "\"channel\":\"";
    const char *found = say == NULL ? NULL : memmem(text, length < 512 ? length : 512, name, sizeof name - 1);
    if (found == NULL) return &reader->sequence;
    uint64_t hash = 1469598103934665603ULL;
    for (const char *letter = found + sizeof name - 1; letter < text + length && *letter != '"'; letter++)
        hash = (hash ^ (unsigned char)*letter) * 1099511628211ULL;
    if (reader->sequences == NULL) reader->sequences = resized(NULL, CHANNELS * 2 * sizeof(int64_t));
    int64_t *slot = reader->sequences + 2 * (hash % CHANNELS);
    if (slot[0] != (int64_t)hash) slot[0] = (int64_t)hash, slot[1] = 0;
    return slot + 1;
}

static int64_t wall_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void message(Reader *reader, const char *text, size_t length, int64_t at) {
    bytes += (long)length;
    if (!reader->is_seen) {
        reader->is_seen = true;
        seen++;
        add(&first_message, at - reader->connected_at);
    }
    int64_t sequence = number_after(text, length, "\"seq\":");
    if (sequence < 0) {
        others++;
        return;
    }
    int64_t *last = sequence_of(reader, text, length);
    out_of_order += sequence <= *last;
    *last = sequence;
    snapshots++;
    if (stamp != NULL) {
        int64_t sent_at = number_after(text, length, stamp);
        if (sent_at > now() - 60 * SECOND && sent_at > SECOND) add(&deliveries, at - sent_at);
        return;
    }
    if (say != NULL) {
        add(&deliveries, (wall_ms() - number_after(text, length, "\"timestamp_ms\":")) * 1000000);
        return;
    }
    if (is_spread) note_change((int)((reader - readers) % path_count), sequence, at);
}

static void frame(Reader *reader, int first, const char *payload, size_t length, int64_t at) {
    if (first == 0x81) message(reader, payload, length, at);
    else if (first == 0x89) errors += !control(reader->fd, 0xa, (const unsigned char *)payload, length);
    else if (first == 0x88) ended(reader);
    else if (first != 0x8a) die("a frame begins with %#x", first);
}

/* Reads what is whole in `data`; gives how much that was. */
static size_t understood(Reader *reader, char *data, size_t length, int64_t at) {
    size_t done = reader->is_upgraded ? 0 : upgraded(reader, data, length);
    while (reader->is_upgraded && reader->is_open) {
        uint64_t size = 0;
        Buffer rest = {data + done, length - done, 0};
        size_t before = header(&rest, &size);
        if (before && ((unsigned char)rest.data[1] & 0x80 || size > sizeof scratch / 2)) die("a frame makes no sense");
        if (!before || rest.length < before + size) break;
        frame(reader, (unsigned char)rest.data[0], rest.data + before, size, at);
        done += before + size;
    }
    return done;
}

static void keep(Buffer *rest, const char *data, size_t length) {
    if (rest->capacity < length) rest->data = resized(rest->data, rest->capacity = length);
    if (length) memcpy(rest->data, data, length);
    rest->length = length;
}

static void readable(Reader *reader, int64_t at) {
    size_t length = reader->rest.length;
    if (length) memcpy(scratch, reader->rest.data, length);
    ssize_t got = recv(reader->fd, scratch + length, sizeof scratch - length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        ended(reader);
        return;
    }
    length += (size_t)got;
    size_t done = understood(reader, scratch, length, at);
    keep(&reader->rest, scratch + done, length - done);
}

/* Serves what is ready, waiting for it up to `timeout_ms`. False where stdin has ended. */
static bool serve(int timeout_ms) {
    static struct epoll_event events[1024];
    int ready = epoll_wait(epoll_fd, events, 1024, timeout_ms);
    int64_t at = now();
    for (int i = 0; i < ready; i++) {
        if (events[i].data.u64 == STDIN_MARK) {
            size_t length = strlen(commands);
            ssize_t got = read(STDIN_FILENO, commands + length, sizeof commands - 1 - length);
            if (got <= 0) return false;
            commands[length + (size_t)got] = 0;
        } else {
            Reader *reader = &readers[events[i].data.u64];
            if (is_spread) at = now();
            if (reader->is_open) readable(reader, at);
        }
    }
    return true;
}

static bool measured(double seconds) {
    double cpu_s = own_cpu_s();
    snapshots = others = bytes = out_of_order = errors = incomplete = 0;
    spreads.length = deliveries.length = 0;
    memset(changes, 0, (size_t)path_count * MEMORY * sizeof(Change));
    int64_t begin = now(), until = begin + (int64_t)(seconds * (double)SECOND);
    while (now() < until) {
        if (!is_spread) usleep(LOOK_US);
        if (!serve(is_spread ? 1 : 0)) return false;
    }
    double took_s = (double)(now() - begin) / 1e9;
    for (int path = 0; path < path_count; path++)
        for (int i = 0; i < MEMORY; i++) forget_change(&changes[path * MEMORY + i], path);
    printf("{\"seconds\":%.6f,\"sockets\":%d,\"open\":%d,\"snapshots\":%ld,\"others\":%ld,\"bytes\":%ld,", took_s, count,
           open_count, snapshots, others, bytes);
    printf("\"out_of_order\":%ld,\"errors\":%ld,\"incomplete\":%ld,\"changes\":%zu,", out_of_order, errors, incomplete,
           spreads.length);
    print_quantiles("spread_us", &spreads);
    printf(",");
    print_quantiles("delivery_us", &deliveries);
    printf(",\"cpu_s\":%.3f}\n", own_cpu_s() - cpu_s);
    return true;
}

static bool obey(void) {
    double seconds;
    is_spread = sscanf(commands, "spread %lf", &seconds) == 1;
    if (!is_spread && sscanf(commands, "measure %lf", &seconds) != 1) die("unknown command: %s", commands);
    commands[0] = 0;
    bool goes_on = measured(seconds);
    is_spread = false;
    fflush(stdout);
    return goes_on;
}

static void open_all(void) {
    int64_t began = now();
    open_more();
    while (seen < count) {
        if (!serve(100)) exit(0);
        if (now() > began + OPENING_LIMIT) die("only %d of %d sockets had a first message", seen, count);
    }
    printf("{\"sockets\":%d,\"open_s\":%.3f,", count, (double)(now() - began) / 1e9);
    print_quantiles("first_us", &first_message);
    printf("}\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 4) die("usage: fanout PORT COUNT PATH...");
    prepare();
    port = numeric(argv[1], 1, 65535);
    count = numeric(argv[2], 1, 28000);
    paths = argv + 3;
    path_count = argc - 3;
    say = getenv("SAY");
    stamp = getenv("STAMP");
    readers = calloc((size_t)count, sizeof(Reader));
    changes = calloc((size_t)path_count * MEMORY, sizeof(Change));
    if (readers == NULL || changes == NULL) die("out of memory");
    watch(STDIN_FILENO, STDIN_MARK);
    open_all();
    while (serve(1000)) {
        if (strchr(commands, '\n') != NULL && !obey()) break;
    }
    return 0;
}
