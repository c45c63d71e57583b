/* A driver's management library whose answers come from the file CONTROL: one line each of "count N", "busy PERCENT" and "xid N".
   An XID is told once, and then waited for until the file has another. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { void *device; unsigned long long type, data; unsigned int gpu, compute; } event_t;

static long told = -1;

static long control(const char *name, long otherwise) {
    FILE *file = fopen(CONTROL, "r");
    char found[16];
    long value;
    while (file && fscanf(file, "%15s %ld", found, &value) == 2)
        if (!strcmp(found, name)) otherwise = value;
    if (file) fclose(file);
    return otherwise;
}

static int text(char *out, unsigned int length, const char *from) { return snprintf(out, length, "%s", from) < (int)length ? 0 : 7; }

int nvmlInit_v2(void) { return control("broken", 0) ? 9 : 0; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { (void)error; return "an error of the test"; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 12080; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = control("count", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)(long)(uuid[strlen(uuid) - 1] - '0'); return 0; }
int nvmlDeviceGetUUID(void *device, char *out, unsigned int length) {
    char uuid[32];
    snprintf(uuid, sizeof uuid, "%s-test-%ld", (long)device > 10 ? "MIG" : "GPU", (long)device);
    return text(out, length, uuid);
}
int nvmlDeviceGetName(void *device, char *out, unsigned int length) { (void)device; return text(out, length, "NVIDIA Test"); }
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_t *memory) { (void)device; memory->total = 1ull << 34; memory->free = memory->total; memory->used = memory->reserved = 0; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned int *count) { (void)device; *count = control("mig", 0); return *count ? 0 : 3; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned int index, void **instance) { *instance = (void *)((long)device * 10 + index + 1); return 0; }
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) { (void)device; rates->gpu = control("busy", 0); rates->memory = 0; return 0; }
int nvmlEventSetCreate(void **set) { *set = (void *)1; return 0; }
int nvmlEventSetFree(void *set) { (void)set; return 0; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) { (void)device; (void)types; (void)set; return 0; }
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned int millis) {
    (void)set;
    for (unsigned int waited = 0;; waited += 5) {
        long xid = control("xid", 0);
        if (xid && xid != told) {
            memset(event, 0, sizeof *event);
            event->device = (void *)1;
            event->type = 8;
            event->data = told = xid;
            return 0;
        }
        if (waited >= millis) return 10;
        usleep(5000);
    }
}
