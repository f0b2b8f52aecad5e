/* The floor of a broadcast: one write(2) per socket and frame on one thread, and nothing else. Linux.

   floor PORT COUNT FRAME_FILE
       Waits for COUNT WebSockets on 127.0.0.1, then writes the message of FRAME_FILE to all of them for ever, each time
       with its seq one higher. A socket that cannot take it is skipped; one that took a part gets the rest first.

   It knows only what the readers of fanout.c send: one key in the handshake, and nothing after it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LARGEST 65535
#define EVENTS 64
#define DIGITS 12
#define UPGRADE \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

typedef struct {
    int fd;
    size_t left; /* of the frame that it took a part of */
    char *rest;
} Client;

static char frame[LARGEST + 4], *digits;
static size_t frame_length;
static Client *clients;
static int count, upgraded;
static int epoll_fd, listener;

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void load_frame(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die(path);
    size_t length = fread(frame + 4, 1, LARGEST, file);
    fclose(file);
    frame[0] = (char)0x81;
    frame[1] = 126;
    frame[2] = (char)(length >> 8);
    frame[3] = (char)length;
    frame_length = length + 4;
    digits = memmem(frame, frame_length, "\"seq\":", 6);
    if (digits == NULL || length < 126) die("the frame has no seq, or is too short");
    digits += 6;
}

static void next_frame(void) {
    static int64_t sequence = 100000000000;
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)++sequence);
    memcpy(digits, text, DIGITS);
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll");
}

static void listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) die("listen");
    epoll_fd = epoll_create1(0);
    watch(listener);
}

static void accept_all(void) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd);
    }
}

/* A handshake, or the end of a reader, which nobody misses. */
static void arrived(int fd) {
    char request[2048];
    ssize_t got = read(fd, request, sizeof request);
    if (got < 4 || upgraded == count || memcmp(request, "GET ", 4) != 0) return;
    if (write(fd, UPGRADE, strlen(UPGRADE)) < 0) die("handshake");
    clients[upgraded++].fd = fd;
}

static void serve(int timeout_ms) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);
    for (int i = 0; i < ready; i++) {
        if (events[i].data.fd == listener) accept_all();
        else arrived(events[i].data.fd);
    }
}

static void keep(Client *client, const char *rest, size_t left) {
    if (client->rest == NULL && (client->rest = malloc(sizeof frame)) == NULL) die("memory");
    memmove(client->rest, rest, left);
    client->left = left;
}

static void show(Client *client) {
    if (client->left) {
        ssize_t done = send(client->fd, client->rest, client->left, MSG_NOSIGNAL);
        if (done > 0) keep(client, client->rest + done, client->left - (size_t)done);
        if (client->left) return;
    }
    ssize_t done = send(client->fd, frame, frame_length, MSG_NOSIGNAL);
    if (done >= 0 && (size_t)done < frame_length) keep(client, frame + done, frame_length - (size_t)done);
}

int main(int argc, char **argv) {
    if (argc < 4) die("usage: floor PORT COUNT FRAME_FILE");
    count = atoi(argv[2]);
    clients = calloc((size_t)count, sizeof(Client));
    load_frame(argv[3]);
    listen_on(atoi(argv[1]));
    while (upgraded < count) serve(-1);
    for (;;) {
        next_frame();
        for (int i = 0; i < count; i++) show(&clients[i]);
        serve(0);
    }
}
