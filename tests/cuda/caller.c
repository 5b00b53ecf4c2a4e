/* Calls functions of shared libraries as it is told on its standard input, one command a line, one answer a line.
 *
 *   open PATH                 loads a library; answers "ok", or what dlopen says
 *   call SYMBOL N [ARG ...]   calls it N times; answers "RESULT NANOSECONDS", of the last call and of all of them
 *   threads T SYMBOL N [...]  the same in each of T new threads at once
 *   fork SYMBOL N [...]       the same in a forked child
 *   find SYMBOL PROCEDURE     whether cuGetProcAddress (by the name PROCEDURE) gives the exported symbol SYMBOL
 *   set K I VALUE            writes a 64-bit number as word I (of 32) of place K
 *   tid                       answers the thread's id
 *
 * ARG is a number, @K for the address of place K (of 16), or *K for what stands there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef int (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

static uint64_t places[16][32];

struct order {
    function call;
    long times;
    uint64_t args[6];
    int result;
    long ns;
};

static void *symbol(const char *name) { return dlsym(RTLD_DEFAULT, name); }

static int parse(struct order *order, char *save) {
    char *name = strtok_r(0, " ", &save), *times = strtok_r(0, " ", &save), *word;
    memset(order, 0, sizeof *order);
    if (!name || !times || !(*(void **)&order->call = symbol(name))) return 0;
    order->times = atol(times);
    for (int i = 0; i < 6 && (word = strtok_r(0, " ", &save)); i++) {
        if (*word == '@')
            order->args[i] = (uint64_t)places[atoi(word + 1) & 15];
        else if (*word == '*')
            order->args[i] = places[atoi(word + 1) & 15][0];
        else
            order->args[i] = strtoull(word, 0, 0);
    }
    return 1;
}

static void *run(void *raw) {
    struct order *order = raw;
    struct timespec from, to;
    uint64_t *a = order->args;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long i = 0; i < order->times; i++) order->result = order->call(a[0], a[1], a[2], a[3], a[4], a[5]);
    clock_gettime(CLOCK_MONOTONIC, &to);
    order->ns = (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec;
    return 0;
}

static void answer(char *line) {
    char *save, *word = strtok_r(line, " ", &save);
    struct order order;
    if (!word) {
        puts("?");
    } else if (!strcmp(word, "open")) {
        char *path = strtok_r(0, "", &save);
        puts(path && dlopen(path, RTLD_NOW | RTLD_GLOBAL) ? "ok" : dlerror());
    } else if (!strcmp(word, "tid")) {
        printf("%ld\n", syscall(SYS_gettid));
    } else if (!strcmp(word, "set")) {
        char *place = strtok_r(0, " ", &save), *at = strtok_r(0, " ", &save), *value = strtok_r(0, " ", &save);
        if (value) places[atoi(place) & 15][atoi(at) & 31] = strtoull(value, 0, 0);
        puts("ok");
    } else if (!strcmp(word, "find")) {
        char *name = strtok_r(0, " ", &save), *with = strtok_r(0, " ", &save);
        int (*procedure)(const char *, void **, int, uint64_t, int *);
        void *found = 0;
        *(void **)&procedure = with ? symbol(with) : 0;
        int result = procedure ? procedure(name, &found, 12040, 0, 0) : -1;
        Dl_info info;
        puts(result == 0 && dladdr(found, &info) && info.dli_saddr == found ? info.dli_sname : "?");
    } else if (!strcmp(word, "call") && parse(&order, save)) {
        run(&order);
        printf("%d %ld\n", order.result, order.ns);
    } else if (!strcmp(word, "fork") && parse(&order, save)) {
        pid_t child = fork();
        int status = 0;
        if (!child) {
            run(&order);
            _exit(0);
        }
        waitpid(child, &status, 0);
        printf("%d %d\n", status, (int)child);
    } else if (!strcmp(word, "threads")) {
        char *number = strtok_r(0, " ", &save);
        int count = number ? atoi(number) : 0;
        struct order orders[64];
        pthread_t threads[64];
        if (count < 1 || count > 64 || !parse(&orders[0], save)) {
            puts("?");
            return;
        }
        for (int i = 0; i < count; i++) {
            orders[i] = orders[0];
            pthread_create(&threads[i], 0, run, &orders[i]);
        }
        for (int i = 0; i < count; i++) pthread_join(threads[i], 0);
        printf("%d %ld\n", orders[0].result, orders[0].ns);
    } else {
        puts("?");
    }
}

int main(void) {
    static char line[4096];
    setvbuf(stdout, 0, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
    }
    return 0;
}
