/* What every client here needs: time, buffers, series of numbers, connections, and being woken first. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define PER_SOURCE 20000 /* sockets from one address */
#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* with its answer, from RFC 6455, section 1.3 */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static int epoll_fd;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void *resized(void *memory, size_t size) {
    memory = realloc(memory, size);
    if (memory == NULL) die("out of memory");
    return memory;
}

/* Bytes received and not yet understood. */
typedef struct {
    char *data;
    size_t length, capacity;
} Buffer;

/* Numbers that are sorted at the end. */
typedef struct {
    int64_t *values;
    size_t length, capacity;
} Series;

static void add(Series *series, int64_t value) {
    if (series->length == series->capacity) {
        series->capacity = series->capacity ? series->capacity * 2 : 64;
        series->values = resized(series->values, series->capacity * sizeof(int64_t));
    }
    series->values[series->length++] = value;
}

static int compare(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static double quantile_us(const Series *sorted, double share) {
    size_t index = (size_t)(share * (double)sorted->length);
    if (index >= sorted->length) index = sorted->length - 1;
    return (double)sorted->values[index] / 1e3;
}

static void print_quantiles(const char *name, Series *series) {
    if (series->length == 0) {
        printf("\"%s\":null", name);
        return;
    }
    qsort(series->values, series->length, sizeof(int64_t), compare);
    printf("\"%s\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name, quantile_us(series, 0.5),
           quantile_us(series, 0.9), quantile_us(series, 0.99), quantile_us(series, 1.0));
}

/* A socket that comes from 127.0.0.1, or 127.0.0.2 for `source` 1, and so on: each address has some 28,000 ports. */
static int unconnected(int source) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("no socket: %s", strerror(errno));
    if (source == 0) return fd;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)source);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("cannot bind: %s", strerror(errno));
    return fd;
}

static void connect_to(int port, int fd) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("cannot connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int connected(int port, int source) {
    int fd = unconnected(source);
    connect_to(port, fd);
    return fd;
}

static void watch(int fd, uint64_t mark) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = mark};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll: %s", strerror(errno));
}

/* Small messages into empty send buffers go whole or not at all. */
static bool sent(int fd, const char *data, size_t length) {
    return send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length;
}

static int numeric(const char *text, int least, int most) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < least || value > most) die("%s is no number from %d to %d", text, least, most);
    return (int)value;
}

/* To be woken at once although the simulator shares our core. Without the right to it, "sent late" tells what it costs. */
static void come_first(void) {
    struct sched_param priority = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &priority) == 0) return;
    if (nice(-10) == -1) return;
}

static double own_cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* As many descriptors as the system lets us have, our priority, and epoll. With PATIENT in the environment the others on
   our core come first: another client that measures latency, say. */
static void prepare(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (getenv("PATIENT") == NULL) come_first();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
}

/* The length of the frame's header, 0 while it is not all there; its payload's length into *length. */
static size_t header(const Buffer *in, uint64_t *length) {
    const unsigned char *data = (const unsigned char *)in->data;
    if (in->length < 2) return 0;
    size_t more = (data[1] & 0x7f) == 126 ? 2 : (data[1] & 0x7f) == 127 ? 8 : 0;
    if (in->length < 2 + more) return 0;
    *length = more ? 0 : data[1] & 0x7f;
    for (size_t i = 0; i < more; i++) *length = *length << 8 | data[2 + i];
    return 2 + more;
}

/* A text frame, masked. */
static bool text_sent(int fd, const char *text) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t length = strlen(text), before = length < 126 ? 2 : 4;
    if (length > 65535) die("a text is too long");
    char *frame = resized(NULL, before + 4 + length);
    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | (length < 126 ? length : 126));
    if (length >= 126) frame[2] = (char)(length >> 8), frame[3] = (char)(length & 0xff);
    memcpy(frame + before, mask, 4);
    for (size_t i = 0; i < length; i++) frame[before + 4 + i] = (char)(text[i] ^ mask[i % 4]);
    bool is_sent = sent(fd, frame, before + 4 + length);
    free(frame);
    return is_sent;
}

/* A control frame back, masked as clients have to (RFC 6455, section 5.3). */
static bool control(int fd, int opcode, const unsigned char *payload, size_t length) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    char frame[131] = {(char)(0x80 | opcode), (char)(0x80 | length)};
    memcpy(frame + 2, mask, 4);
    for (size_t i = 0; i < length; i++) frame[6 + i] = (char)(payload[i] ^ mask[i % 4]);
    return sent(fd, frame, 6 + length);
}
