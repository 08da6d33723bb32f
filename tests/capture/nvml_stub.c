/* A stand-in for libnvidia-ml.so.1 whose answers come from the environment:
 *   STUB_GPUS=2                       number of GPUs
 *   STUB_USED_MIB=100,300,200         memory in use at each reading of a GPU, the last repeated; GPU i has i times 1000 more
 *   STUB_MIG=1                        MIG instances of each GPU; absent: no MIG
 *   STUB_PROCESS=PID:BYTES            one process on each GPU; PID may be self, BYTES may be NA
 *   STUB_<function>=CODE              that function answers with this error
 *   STUB_DELAY_MS=30                  each memory reading takes so long
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB 1048576ull
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define FAIL_IF_TOLD()                                   \
    do {                                                 \
        int code = told(__func__);                       \
        if (code) return code;                           \
    } while (0)

typedef struct { int gpu, instance, readings; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } Process;
typedef struct { unsigned gpu, memory; } Utilization;

static Device boards[8], parts[8][8];

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int told(const char *function) {
    char name[128];
    snprintf(name, sizeof name, "STUB_%s", function);
    return number(name, 0);
}

static unsigned long long used_mib(int reading) {
    const char *text = getenv("STUB_USED_MIB");
    if (!text) return 100;
    for (; reading > 0 && strchr(text, ','); reading--) text = strchr(text, ',') + 1;
    return strtoull(text, NULL, 10);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; FAIL_IF_TOLD(); return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "A fault without a name"; }
int nvmlDeviceGetCount_v2(unsigned *count) { FAIL_IF_TOLD(); *count = number("STUB_GPUS", 1); return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    FAIL_IF_TOLD();
    boards[index].gpu = index;
    boards[index].instance = -1;
    *device = &boards[index];
    return 0;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    (void)device;
    if (!getenv("STUB_MIG")) return 3;
    *current = *pending = 1;
    return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) { (void)device; *count = 7; return 0; }

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **part) {
    if ((int)index >= number("STUB_MIG", 0)) return NOT_FOUND;
    parts[device->gpu][index].gpu = device->gpu;
    parts[device->gpu][index].instance = index;
    *part = &parts[device->gpu][index];
    return 0;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned length) {
    FAIL_IF_TOLD();
    if (device->instance < 0) snprintf(name, length, "Stub %d", device->gpu);
    else snprintf(name, length, "Stub %d MIG 1g.10gb", device->gpu);
    return 0;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned length) {
    if (device->instance < 0) snprintf(uuid, length, "GPU-%d", device->gpu);
    else snprintf(uuid, length, "MIG-%d-%d", device->gpu, device->instance);
    return 0;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    FAIL_IF_TOLD();
    usleep(1000 * number("STUB_DELAY_MS", 0));
    memory->total = (device->instance < 0 ? 80000 : 10000) * MIB;
    memory->used = (used_mib(device->readings++) + 1000 * device->gpu) * MIB;
    memory->free = memory->total - memory->used;
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes) {
    (void)device;
    FAIL_IF_TOLD();
    const char *text = getenv("STUB_PROCESS");
    unsigned room = *count;
    *count = text ? 1 : 0;
    if (!text) return 0;
    if (!processes || room < 1) return INSUFFICIENT_SIZE;
    const char *bytes = strchr(text, ':') + 1;
    processes[0].pid = strncmp(text, "self:", 5) ? (unsigned)atoi(text) : (unsigned)getpid();
    processes[0].used = strcmp(bytes, "NA") ? strtoull(bytes, NULL, 10) : ~0ull;
    return 0;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    (void)device;
    FAIL_IF_TOLD();
    rates->gpu = 37;
    rates->memory = 5;
    return 0;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) { (void)device; FAIL_IF_TOLD(); *milliwatts = 123456; return 0; }

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) {
    (void)device;
    (void)sensor;
    FAIL_IF_TOLD();
    *celsius = 61;
    return 0;
}
