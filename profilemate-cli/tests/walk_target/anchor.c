// C functions at whose calls stacks are walked, and a thread that is not Python's.
#include <pthread.h>
#include <unistd.h>

#define EXPORT __attribute__((noinline, visibility("default")))

static volatile long passed;

EXPORT void anchor(long value) { passed = value; }

// Says that it is here, and stays until a byte comes.
EXPORT void hold(long value) {
    char byte;
    passed = value;
    if (write(1, "held\n", 5) == 5 && read(0, &byte, 1) == 1) passed = byte;
}

static void *thread(void *value) {
    anchor((long)value);
    return 0;
}

EXPORT void foreign(long value) {
    pthread_t id;
    if (pthread_create(&id, 0, thread, (void *)value) == 0) pthread_join(id, 0);
}
