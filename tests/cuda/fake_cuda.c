/* A stand-in for libcuda: the driver's names, the shape of its entry points, and enough of its behaviour for captured
 * graphs. It counts every call, so that a test can compare what was seen with what was done.
 *
 * Built as libcuda.so.1: gcc -O2 -shared -fPIC -Wl,-soname,libcuda.so.1 fake_cuda.c -o libcuda.so.1 -lpthread -ldl
 *
 * What was called can be read
 *   - in the process: fake_cuda_calls("cuGraphLaunch");
 *   - from outside, while it runs and after it was killed: with FAKE_CUDA_COUNTS=FOLDER each process has a file
 *     FOLDER/PID of records of 64 bytes, a name of up to 55 characters and the number of calls as a 64-bit integer.
 * Built with -DODD_LAUNCH, cuGraphLaunch begins in a way that no probe can be put into.
 * fake_cuda_fail("cuGraphLaunch", 719) makes the next call fail. FAKE_CUDA_SYNC_US is how long a synchronise takes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int CUresult;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900,
};

/* ---- counts ---- */

#define COUNTS 256
struct count {
    char name[56];
    uint64_t calls;
};
static struct count own_counts[COUNTS];
static struct count *counts = own_counts;
static int failing[COUNTS];
static unsigned names;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned entry_of(const char *name) {
    for (unsigned i = 0; i < names; i++)
        if (!strcmp(counts[i].name, name)) return i;
    if (names == COUNTS) abort();
    strncpy(counts[names].name, name, sizeof counts[names].name - 1);
    return names++;
}

static void map_counts(void) {
    const char *folder = getenv("FAKE_CUDA_COUNTS");
    if (!folder) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/%d", folder, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof own_counts)) return;
    void *map = mmap(0, sizeof own_counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return;
    struct count *fresh = map;
    for (unsigned i = 0; i < names; i++) {
        memcpy(fresh[i].name, counts[i].name, sizeof fresh[i].name);
        fresh[i].calls = 0;
    }
    counts = fresh;
}

static useconds_t sync_us;

__attribute__((constructor(200))) static void start(void) {
    const char *us = getenv("FAKE_CUDA_SYNC_US");
    sync_us = us ? (useconds_t)atoi(us) : 0;
    map_counts();
    pthread_atfork(0, 0, map_counts);
}

__attribute__((visibility("default"))) unsigned long long fake_cuda_calls(const char *name) {
    for (unsigned i = 0; i < names; i++)
        if (!strcmp(counts[i].name, name)) return counts[i].calls;
    return 0;
}

__attribute__((visibility("default"))) int fake_cuda_fail(const char *name, int result) {
    for (unsigned i = 0; i < names; i++)
        if (!strcmp(counts[i].name, name)) {
            __atomic_store_n(&failing[i], result, __ATOMIC_RELAXED);
            return 1;
        }
    return 0;
}

/* Counts a call; what it has to fail with. */
static inline int called(unsigned entry) {
    __atomic_fetch_add(&counts[entry].calls, 1, __ATOMIC_RELAXED);
    if (__builtin_expect(failing[entry] != 0, 0)) return __atomic_exchange_n(&failing[entry], 0, __ATOMIC_RELAXED);
    return 0;
}

/* ---- entry points ---- */

#ifndef STUB_PROLOGUE
/* As every export of libcuda 535 and 550. */
#define STUB_PROLOGUE(name)                                                                                           \
    "cmpl $0x321cba00, fake_cuda_closed(%rip)\n je 1f\n jmp *target_" #name "(%rip)\n nopw 0(%rax,%rax,1)\n"           \
    "1: mov $4, %eax\n ret\n"
#endif

/* An entry that a probe cannot pass cheaply: the stack pointer changes before any instruction that is emulated. */
#define ODD_PROLOGUE(name) "sub $8, %rsp\n add $8, %rsp\n jmp *target_" #name "(%rip)\n"
#ifdef ODD_LAUNCH
#define LAUNCH_PROLOGUE ODD_PROLOGUE
#else
#define LAUNCH_PROLOGUE STUB_PROLOGUE
#endif

__attribute__((visibility("hidden"))) uint32_t fake_cuda_closed = 0;

#define EXPORT(name, shape)                                                                                           \
    __attribute__((visibility("hidden"))) void *target_##name = (void *)real_##name;                                   \
    __asm__(".text\n .p2align 5\n .globl " #name "\n .type " #name ",@function\n" #name ":\n" shape(name)              \
            ".size " #name ", .-" #name "\n");

/* A function with its body. Its variants share the body and have counts of their own. */
#define VARIANT(name, shape, parameters, ...)                                                                         \
    static unsigned entry_##name;                                                                                      \
    __attribute__((constructor(150))) static void enter_##name(void) { entry_##name = entry_of(#name); }              \
    __attribute__((used)) static CUresult real_##name parameters {                                                     \
        int failure = called(entry_##name);                                                                            \
        if (failure) return failure;                                                                                   \
        __VA_ARGS__                                                                                                    \
    }                                                                                                                  \
    EXPORT(name, shape)
#define ONE(name, parameters, ...) VARIANT(name, STUB_PROLOGUE, parameters, __VA_ARGS__)
#define TWO(name, parameters, ...) ONE(name, parameters, __VA_ARGS__) ONE(name##_ptsz, parameters, __VA_ARGS__)

/* ---- state ---- */

enum kind { FREE, STREAM, GRAPH, EXEC, EVENT };
struct object {
    enum kind kind;
    int capturing;
    unsigned nodes;
    struct object *next;
};
#define OBJECTS 65536
/* Handles are places in this array; one that was destroyed is the next to be used again, as with the real driver. */
static struct object objects[OBJECTS];
static struct object *unused;
static unsigned fresh;
/* The null stream, and the two other streams without a handle of their own. */
static struct object null_streams[3] = {{STREAM, 0, 0, 0}, {STREAM, 0, 0, 0}, {STREAM, 0, 0, 0}};

static struct object *make(enum kind kind) {
    pthread_mutex_lock(&lock);
    struct object *made = unused;
    if (made)
        unused = made->next;
    else if (fresh < OBJECTS)
        made = &objects[fresh++];
    pthread_mutex_unlock(&lock);
    if (made) *made = (struct object){kind, 0, 0, 0};
    return made;
}

static int is(void *handle, enum kind kind) {
    struct object *object = handle;
    return object >= objects && object < objects + OBJECTS && object->kind == kind;
}

static CUresult destroy(void *handle, enum kind kind) {
    if (!is(handle, kind)) return INVALID_HANDLE;
    struct object *object = handle;
    pthread_mutex_lock(&lock);
    object->kind = FREE;
    object->next = unused;
    unused = object;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* Any other number is a stream that the caller made up: it is no stream of ours, and is not captured. */
static struct object *stream_of(void *handle) {
    if ((uintptr_t)handle < 3) return &null_streams[(uintptr_t)handle];
    return is(handle, STREAM) ? handle : 0;
}

static void work(void *stream) {
    struct object *object = stream_of(stream);
    if (object && object->capturing) object->nodes++;
}

static CUresult begin(void *stream) {
    struct object *object = stream_of(stream);
    if (!object) return INVALID_HANDLE;
    if (object->capturing) return ILLEGAL_STATE;
    object->capturing = 1;
    object->nodes = 0;
    return SUCCESS;
}

static CUresult end(void *stream, void **graph) {
    struct object *object = stream_of(stream);
    if (!object || !graph) return INVALID_HANDLE;
    if (!object->capturing) return ILLEGAL_STATE;
    object->capturing = 0;
    struct object *made = make(GRAPH);
    if (!made) return 2;
    made->nodes = object->nodes;
    *graph = made;
    return SUCCESS;
}

static CUresult instantiate(void **exec, void *graph) {
    if (!exec) return INVALID_VALUE;
    if (!is(graph, GRAPH)) return INVALID_HANDLE;
    struct object *made = make(EXEC);
    if (!made) return 2;
    made->nodes = ((struct object *)graph)->nodes;
    *exec = made;
    return SUCCESS;
}

static CUresult synchronise(void *stream) {
    struct object *object = stream_of(stream);
    if (object && object->capturing) return CAPTURE_UNSUPPORTED;
    if (sync_us) usleep(sync_us);
    return SUCCESS;
}

/* ---- the driver's functions ---- */

ONE(cuInit, (unsigned flags), { return flags ? INVALID_VALUE : SUCCESS; })
ONE(cuDriverGetVersion, (int *version), { return version ? (*version = 12040, SUCCESS) : INVALID_VALUE; })
TWO(cuStreamBeginCapture, (void *stream), { return begin(stream); })
TWO(cuStreamBeginCapture_v2, (void *stream, int mode), { return mode > 2 ? INVALID_VALUE : begin(stream); })
TWO(cuStreamEndCapture, (void *stream, void **graph), { return end(stream, graph); })
TWO(cuStreamIsCapturing, (void *stream, int *status), {
    struct object *object = stream_of(stream);
    if (!object || !status) return INVALID_HANDLE;
    *status = object->capturing;
    return SUCCESS;
})
TWO(cuStreamGetCaptureInfo_v2, (void *stream, int *status, uint64_t *id), {
    struct object *object = stream_of(stream);
    if (!object || !status) return INVALID_HANDLE;
    *status = object->capturing;
    if (id) *id = 1;
    return SUCCESS;
})
ONE(cuStreamCreate, (void **stream, unsigned flags), {
    return stream ? (*stream = make(STREAM)) ? SUCCESS : 2 : INVALID_VALUE;
})
ONE(cuStreamDestroy_v2, (void *stream), { return destroy(stream, STREAM); })
ONE(cuGraphInstantiate, (void **exec, void *graph), { return instantiate(exec, graph); })
ONE(cuGraphInstantiate_v2, (void **exec, void *graph), { return instantiate(exec, graph); })
ONE(cuGraphInstantiateWithFlags, (void **exec, void *graph, unsigned long long flags), {
    return instantiate(exec, graph);
})
TWO(cuGraphInstantiateWithParams, (void **exec, void *graph, void *parameters), {
    return instantiate(exec, graph);
})
TWO(cuGraphUpload, (void *exec, void *stream), {
    return is(exec, EXEC) ? SUCCESS : INVALID_HANDLE;
})
static CUresult launch(void *exec, void *stream) {
    work(stream);
    return is(exec, EXEC) ? SUCCESS : INVALID_HANDLE;
}
VARIANT(cuGraphLaunch, LAUNCH_PROLOGUE, (void *exec, void *stream), { return launch(exec, stream); })
VARIANT(cuGraphLaunch_ptsz, LAUNCH_PROLOGUE, (void *exec, void *stream), { return launch(exec, stream); })
ONE(cuGraphExecUpdate, (void *exec, void *graph), {
    return is(exec, EXEC) && is(graph, GRAPH) ? SUCCESS : INVALID_HANDLE;
})
ONE(cuGraphExecUpdate_v2, (void *exec, void *graph), {
    return is(exec, EXEC) && is(graph, GRAPH) ? SUCCESS : INVALID_HANDLE;
})
ONE(cuGraphExecDestroy, (void *exec), { return destroy(exec, EXEC); })
ONE(cuGraphDestroy, (void *graph), { return destroy(graph, GRAPH); })
TWO(cuStreamSynchronize, (void *stream), { return synchronise(stream); })
ONE(cuEventCreate, (void **event, unsigned flags), {
    return event ? (*event = make(EVENT)) ? SUCCESS : 2 : INVALID_VALUE;
})
ONE(cuEventDestroy_v2, (void *event), { return destroy(event, EVENT); })
TWO(cuEventRecord, (void *event, void *stream), {
    work(stream);
    return is(event, EVENT) ? SUCCESS : INVALID_HANDLE;
})
TWO(cuEventRecordWithFlags, (void *event, void *stream, unsigned flags), {
    work(stream);
    return is(event, EVENT) ? SUCCESS : INVALID_HANDLE;
})
ONE(cuEventSynchronize, (void *event), { return is(event, EVENT) ? synchronise((void *)2) : INVALID_HANDLE; })
ONE(cuCtxSynchronize, (void), { return synchronise((void *)2); })
TWO(cuLaunchKernel,
    (void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
     void *stream, void **parameters, void **extra),
    {
        work(stream);
        return SUCCESS;
    })
TWO(cuLaunchKernelEx, (void *config, void *function, void **parameters, void **extra), {
    return SUCCESS;
})
TWO(cuMemcpyAsync, (uint64_t to, uint64_t from, size_t bytes, void *stream), {
    work(stream);
    return SUCCESS;
})
TWO(cuMemcpyHtoDAsync_v2, (uint64_t to, void *from, size_t bytes, void *stream), {
    work(stream);
    return SUCCESS;
})
ONE(cuMemcpyHtoDAsync, (unsigned to, void *from, unsigned bytes, void *stream), {
    work(stream);
    return SUCCESS;
})
TWO(cuMemcpyDtoHAsync_v2, (void *to, uint64_t from, size_t bytes, void *stream), {
    work(stream);
    return SUCCESS;
})
TWO(cuMemcpyDtoDAsync_v2, (uint64_t to, uint64_t from, size_t bytes, void *stream), {
    work(stream);
    return SUCCESS;
})
TWO(cuMemcpyPeerAsync, (uint64_t to, void *context, uint64_t from, void *other, size_t bytes, void *stream), {
    work(stream);
    return SUCCESS;
})
TWO(cuMemcpy2DAsync_v2, (const void *copy, void *stream), {
    work(stream);
    return copy ? SUCCESS : INVALID_VALUE;
})

/* As the real one: the exported symbol, by the newest version of its signature; the per-thread form with flag 2. */
static CUresult procedure(const char *symbol, void **function, uint64_t flags) {
    static const char *const suffixes[2][3] = {{"_v3", "_v2", ""}, {"_v3_ptsz", "_v2_ptsz", "_ptsz"}};
    if (!symbol || !function) return INVALID_VALUE;
    char name[128];
    for (int form = flags & 2 ? 1 : 0; form >= 0; form--)
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "%s%s", symbol, suffixes[form][i]);
            if ((*function = dlsym(RTLD_DEFAULT, name))) return SUCCESS;
            void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
            if (self && (*function = dlsym(self, name))) return SUCCESS;
        }
    return NOT_FOUND;
}
ONE(cuGetProcAddress, (const char *symbol, void **function, int version, uint64_t flags), {
    return procedure(symbol, function, flags);
})
ONE(cuGetProcAddress_v2, (const char *symbol, void **function, int version, uint64_t flags, int *status), {
    if (status) *status = 0;
    return procedure(symbol, function, flags);
})
