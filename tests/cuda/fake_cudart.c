/* A stand-in for libcudart: its names for graphs, and calls of the driver through pointers that the driver gives, as
 * the real one makes them.
 *
 * Built as libcudart.so.12: gcc -O2 -fno-omit-frame-pointer -shared -fPIC -Wl,-soname,libcudart.so.12 fake_cudart.c
 *     -o libcudart.so.12 -ldl
 */
#include <dlfcn.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default"), noinline))

static void *driver(const char *symbol) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    int (*procedure)(const char *, void **, int, uint64_t, int *);
    void *function = 0;
    if (!library) return 0;
    *(void **)&procedure = dlsym(library, "cuGetProcAddress_v2");
    if (!procedure || procedure(symbol, &function, 12040, 0, 0)) return 0;
    return function;
}

#define CALL(type, symbol, ...)                                                                                       \
    static int(*function) type;                                                                                        \
    if (!function) *(void **)&function = driver(symbol);                                                               \
    return function ? function(__VA_ARGS__) : 35;

EXPORT int cudaStreamBeginCapture(void *stream, int mode) { CALL((void *, int), "cuStreamBeginCapture", stream, mode) }
EXPORT int cudaStreamEndCapture(void *stream, void **graph) {
    CALL((void *, void **), "cuStreamEndCapture", stream, graph)
}
EXPORT int cudaGraphInstantiate(void **exec, void *graph, uint64_t flags) {
    CALL((void **, void *, uint64_t), "cuGraphInstantiateWithFlags", exec, graph, flags)
}
EXPORT int cudaGraphLaunch(void *exec, void *stream) { CALL((void *, void *), "cuGraphLaunch", exec, stream) }
EXPORT int cudaGraphExecDestroy(void *exec) { CALL((void *), "cuGraphExecDestroy", exec) }
EXPORT int cudaStreamSynchronize(void *stream) { CALL((void *), "cuStreamSynchronize", stream) }
EXPORT int cudaMemcpyAsync(void *to, const void *from, uint64_t bytes, int kind, void *stream) {
    (void)kind;
    CALL((void *, const void *, uint64_t, void *), "cuMemcpyAsync", to, from, bytes, stream)
}
