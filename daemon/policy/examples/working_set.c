/*
 * A policy of your own for Ballast, in C: memory by working sets.
 *
 *     working_set SOCKET [NAME [DEADLINE-MS [BAD-LIMIT]]]
 *
 * The twin of working_set.py, with nothing but jansson. It attaches to the daemon,
 * is sent the rows of every round, and answers with targets (PROTOCOL.md, "External
 * policies"). To make it yours, change decide(): the rest is the same for every
 * policy. Whatever goes wrong here, the daemon's built-in policy decides instead.
 */
#include <jansson.h>

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE_BYTES 4096.0
#define ROOM       1.25 /* of its working set a VM is given, to grow until the next round */

static double number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static double between(double least, double value, double most)
{
    return value < least ? least : value > most ? most : value;
}

/* What the VM uses, and room: by sampling, else all it ever touched; between min and max. */
static double wanted_pages(const json_t *vm)
{
    double memory = number(vm, "memory_pages");
    double pages = json_object_get(vm, "active_fraction") ? number(vm, "active_fraction") * memory
                                                          : memory - number(vm, "absent_pages");
    return between(number(vm, "min_pages"), ROOM * pages, number(vm, "max_pages"));
}

/*
 * Targets in bytes by VM name. Each VM gets its working set and some room; where that
 * is too much for the host, everybody's part above his min is cut alike; what is left
 * over goes to the large working sets, up to max.
 */
static json_t *decide(double available_pages, const json_t *vms)
{
    size_t i;
    json_t *vm, *targets = json_object();
    double mins = 0, wanted = 0;
    json_array_foreach(vms, i, vm)
    {
        mins += number(vm, "min_pages");
        wanted += wanted_pages(vm);
    }
    double above = wanted - mins, room = available_pages - mins;
    double part = above > 0 ? between(0, room / above, 1) : 0;
    double left = room > above ? room - above : 0;
    json_array_foreach(vms, i, vm)
    {
        double min = number(vm, "min_pages"), want = wanted_pages(vm);
        double pages = min + part * (want - min) + (wanted > 0 ? left * want / wanted : 0);
        pages = (double)(json_int_t)between(min, pages, number(vm, "max_pages"));
        json_object_set_new(targets, json_string_value(json_object_get(vm, "name")),
                            json_integer((json_int_t)(pages * PAGE_BYTES)));
    }
    return targets;
}

/* ---- the same for every policy ---- */

static FILE *connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return NULL;
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return NULL;
    return fdopen(fd, "r");
}

/* One call; params are taken over. */
static bool call(FILE *daemon, const char *method, json_t *params)
{
    static json_int_t last_id;
    json_t *request = json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id", ++last_id, "method",
                                method, "params", params);
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    bool sent = text && dprintf(fileno(daemon), "%s\n", text) > 0;
    free(text);
    json_decref(request);
    return sent;
}

static bool answer(FILE *daemon, const json_t *question)
{
    json_t *targets = decide(number(question, "available_pages"), json_object_get(question, "vms"));
    return call(
        daemon, "policy.targets",
        json_pack("{s:O, s:o}", "round", json_object_get(question, "round"), "targets", targets));
}

/* One message of the daemon. false: it is over. */
static bool take(FILE *daemon, const json_t *message, bool *attached)
{
    const char *method = json_string_value(json_object_get(message, "method"));
    const json_t *params = json_object_get(message, "params");
    const json_t *error = json_object_get(message, "error");
    if (method && strcmp(method, "policy.rows") == 0)
        return answer(daemon, params);
    if (method && strcmp(method, "policy.detached") == 0) {
        fprintf(stderr, "working_set: detached: %s\n",
                json_string_value(json_object_get(params, "reason")));
        return false;
    }
    if (error)
        fprintf(stderr, "working_set: %s\n", json_string_value(json_object_get(error, "message")));
    *attached = *attached || json_object_get(message, "result");
    return !error || *attached;
}

int main(int argc, char **argv)
{
    FILE *daemon = argc > 1 ? connect_to(argv[1]) : NULL;
    if (!daemon) {
        if (argc > 1)
            perror(argv[1]);
        else
            fprintf(stderr, "usage: working_set SOCKET [NAME [DEADLINE-MS [BAD-LIMIT]]]\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN); /* a daemon that has ended is no reason to die of */
    json_t *settings =
        json_pack("{s:s, s:i, s:i}", "name", argc > 2 ? argv[2] : "working-set", "deadline_ms",
                  argc > 3 ? atoi(argv[3]) : 200, "bad_limit", argc > 4 ? atoi(argv[4]) : 8);
    bool attached = false, goes_on = call(daemon, "policy.attach", settings);
    char *line = NULL;
    size_t capacity = 0;
    while (goes_on && getline(&line, &capacity, daemon) > 0) {
        json_t *message = json_loads(line, 0, NULL);
        goes_on = message && take(daemon, message, &attached);
        json_decref(message);
    }
    free(line);
    fclose(daemon);
    return goes_on ? 0 : 1; /* 0: the daemon has ended */
}
