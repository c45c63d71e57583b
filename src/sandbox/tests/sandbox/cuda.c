/* A GPU's driver, as far as a worker asks it. Its thread, begun by cuInit as the real one's are, opens a file for whoever asks. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <unistd.h>

#ifndef CONTEXT
#define CONTEXT 0
#endif

static int contexts, answer;
static const char *wanted;
static sem_t asked, answered;

static void *serve(void *unused) {
    for (;;) {
        sem_wait(&asked);
        int file = open(wanted, O_RDONLY);
        answer = file < 0 ? errno : 0;
        if (file >= 0) close(file);
        sem_post(&answered);
    }
    return unused;
}

int cuInit(unsigned int flags) {
    pthread_t thread;
    (void)flags;
    if (RESULT) return RESULT;
    sem_init(&asked, 0, 0);
    sem_init(&answered, 0, 0);
    return pthread_create(&thread, NULL, serve, NULL);
}
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &contexts; contexts++; return CONTEXT; }
int cuCtxSetCurrent(void *context) { (void)context; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *total = 80ul << 30; *free = *total - (512ul << 20); return 0; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "an error of the test"; return 0; }
int cuGetErrorName(int error, const char **name) { (void)error; *name = "CUDA_ERROR_OF_THE_TEST"; return 0; }

int test_contexts(void) { return contexts; }
int test_open(const char *path) {
    wanted = path;
    sem_post(&asked);
    sem_wait(&answered);
    return answer;
}
