#include "daemon/ballastctl/connection.h"

#include "daemon/rpc/line_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_BYTES_MAX ((size_t)256 << 20) /* rows of every VM of a large host */
#define PROTOCOL       1
#define GREETING_S     10 /* the daemon speaks first, and at once */

struct connection {
    int fd;
    struct line_reader lines;
    json_t *greeting; /* params */
    json_t *kept;     /* array: notifications that came during a call */
    json_int_t last_id;
};

/* One line that is here, as JSON. -1 with err; 0 with *message NULL: no whole line yet. */
static int take_line(struct connection *connection, json_t **message, struct err *err)
{
    const char *line;
    size_t length;
    json_error_t error;
    *message = NULL;
    switch (line_reader_next(&connection->lines, &line, &length)) {
    case LINE_TOO_LONG:
        return err_set(err, 0, "the daemon sent a line of more than %zu bytes", LINE_BYTES_MAX);
    case LINE_READY:
        *message = json_loadb(line, length, 0, &error);
        return *message ? 0 : err_set(err, 0, "the daemon sent no JSON: %s", error.text);
    default:
        return 0;
    }
}

/* One read. -1 with err: the connection ended. 0: something came. 1: nothing is there (with
 * MSG_DONTWAIT, or while the greeting is waited for). */
static int read_some(struct connection *connection, int flags, struct err *err)
{
    size_t room_bytes;
    char *room = line_reader_room(&connection->lines, &room_bytes);
    if (!room)
        return err_set(err, ENOMEM, "read from the daemon");
    ssize_t got = recv(connection->fd, room, room_bytes, flags);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return errno == EINTR ? 0 : 1;
    if (got <= 0)
        return err_set(err, got < 0 ? errno : 0, "the daemon closed the connection");
    line_reader_took(&connection->lines, (size_t)got);
    return 0;
}

/* The next message of any kind. NULL with err. */
static json_t *receive(struct connection *connection, struct err *err)
{
    json_t *message;
    for (;;) {
        if (take_line(connection, &message, err) < 0)
            return NULL;
        if (message)
            return message;
        int got = read_some(connection, 0, err);
        if (got > 0)
            err_set(err, 0, "the daemon does not answer");
        if (got != 0)
            return NULL;
    }
}

static int send_all(struct connection *connection, const char *bytes, size_t length,
                    struct err *err)
{
    while (length > 0) {
        ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return err_set(err, errno, "send to the daemon");
        bytes += sent;
        length -= (size_t)sent;
    }
    return 0;
}

/* An error object's message, for err. */
static void take_error(const json_t *error, struct err *err)
{
    const char *message = json_string_value(json_object_get(error, "message"));
    err_set(err, 0, "%s", message ? message : "the daemon answered an error without a message");
}

static int read_greeting(struct connection *connection, struct err *err)
{
    struct timeval patience = {.tv_sec = GREETING_S};
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    json_t *message = receive(connection, err);
    patience.tv_sec = 0; /* calls and streams take the time they need */
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!message)
        return -1;
    const char *method = json_string_value(json_object_get(message, "method"));
    json_t *params = json_object_get(message, "params");
    json_int_t protocol = json_integer_value(json_object_get(params, "protocol"));
    int result = 0;
    if (json_object_get(message, "error")) {
        take_error(json_object_get(message, "error"), err);
        result = -1;
    } else if (!method || strcmp(method, "hello") != 0) {
        result = err_set(err, 0, "this is not a Ballast control socket");
    } else if (protocol != PROTOCOL) {
        result = err_set(err, 0, "the daemon speaks protocol %lld, this program %d",
                         (long long)protocol, PROTOCOL);
    } else {
        connection->greeting = json_incref(params);
    }
    json_decref(message);
    return result;
}

struct connection *connection_open(const char *socket_path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path) {
        err_set(err, ENAMETOOLONG, "%s", socket_path);
        return NULL;
    }
    strcpy(address.sun_path, socket_path);
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        err_set(err, ENOMEM, "connect to %s", socket_path);
        return NULL;
    }
    line_reader_init(&connection->lines, LINE_BYTES_MAX);
    connection->kept = json_array();
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 ||
        connect(connection->fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        err_set(err, errno, "connect to the daemon at %s", socket_path);
    } else if (read_greeting(connection, err) < 0) {
        err_prefix(err, "%s", socket_path);
    } else {
        return connection;
    }
    connection_close(connection);
    return NULL;
}

void connection_close(struct connection *connection)
{
    if (!connection)
        return;
    if (connection->fd >= 0)
        close(connection->fd);
    line_reader_free(&connection->lines);
    json_decref(connection->greeting);
    json_decref(connection->kept);
    free(connection);
}

const json_t *connection_greeting(const struct connection *connection)
{
    return connection->greeting;
}

enum call_result connection_call(struct connection *connection, const char *method, json_t *params,
                                 json_t **result, struct err *err)
{
    json_int_t id = ++connection->last_id;
    json_t *request = json_pack("{s:s, s:s, s:o*, s:I}", "jsonrpc", "2.0", "method", method,
                                "params", params, "id", id);
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (!text) {
        err_set(err, 0, "the call cannot be written as JSON (is a word not UTF-8?)");
        return CALL_REFUSED;
    }
    size_t length = strlen(text);
    text[length] = '\n'; /* in place of the final NUL: the length is known */
    int sent = send_all(connection, text, length + 1, err);
    free(text);
    if (sent < 0)
        return CALL_BROKEN;
    for (;;) {
        json_t *message = receive(connection, err);
        if (!message)
            return CALL_BROKEN;
        json_t *answers = json_object_get(message, "id");
        if (!answers) {
            json_array_append_new(connection->kept, message);
            continue;
        }
        json_t *error = json_object_get(message, "error");
        if (error && (json_is_null(answers) || json_integer_value(answers) == id)) {
            take_error(error, err);
            json_decref(message);
            return CALL_REFUSED;
        }
        if (json_integer_value(answers) == id) {
            *result = json_incref(json_object_get(message, "result"));
            json_decref(message);
            return CALL_ANSWERED;
        }
        json_decref(message);
    }
}

json_t *connection_next(struct connection *connection, struct err *err)
{
    if (json_array_size(connection->kept) > 0) {
        json_t *message = json_incref(json_array_get(connection->kept, 0));
        json_array_remove(connection->kept, 0);
        return message;
    }
    return receive(connection, err);
}

int connection_fd(const struct connection *connection)
{
    return connection->fd;
}

int connection_poll(struct connection *connection, json_t **message, struct err *err)
{
    if (json_array_size(connection->kept) > 0) {
        *message = connection_next(connection, err);
        return 0;
    }
    for (;;) {
        if (take_line(connection, message, err) < 0)
            return -1;
        if (*message)
            return 0;
        int got = read_some(connection, MSG_DONTWAIT, err);
        if (got != 0)
            return got < 0 ? -1 : 0;
    }
}
