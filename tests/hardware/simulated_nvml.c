/* A driver for tests: a libnvidia-ml.so.1 that plays the machine described in the file named by SIMULATED_NVML.
 *
 * The file is a JSON description made flat (simulated.py): lines `path<TAB>value`, e.g. `cards.0.name<TAB>Tesla T4`.
 * What a description may hold is told in machines/README.md. Any function of any card, and of the driver, can be
 * made to fail, to wait, to hang or to crash: `cards.1.calls.nvmlDeviceGetName.code<TAB>15`.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, LOST = 15 };
#define MIB (1ULL << 20)
#define NOT_TOLD (~0ULL)

typedef struct { unsigned long long total, free, used; } memory1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
typedef struct { unsigned sms, copies, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
                 unsigned long long memory_mb; } attributes;
/* A handle is 1 + index of the card, plus 256 * (1 + position) for a MIG slice. */
typedef unsigned long handle;

static char *text;

static const char *find(const char *path) {
    size_t length = strlen(path);
    if (!text) {
        const char *name = getenv("SIMULATED_NVML");
        FILE *file = name ? fopen(name, "rb") : NULL;
        size_t size = 1 << 20;
        text = calloc(1, size + 2);
        text[0] = '\n';
        if (file && fread(text + 1, 1, size, file) == 0) text[1] = 0;
    }
    for (char *line = text; (line = strchr(line, '\n')); ) {
        line++;
        if (!strncmp(line, path, length) && line[length] == '\t') {
            static char values[8][512];
            static int turn;
            char *value = values[turn = (turn + 1) % 8];
            size_t n = strcspn(line + length + 1, "\n");
            snprintf(value, 512, "%.*s", (int)n, line + length + 1);
            return value;
        }
    }
    return NULL;
}
static const char *get(const char *format, ...) {
    char path[256];
    va_list list;
    va_start(list, format);
    vsnprintf(path, sizeof path, format, list);
    va_end(list);
    return find(path);
}
static long long number(const char *value, long long otherwise) { return value ? atoll(value) : otherwise; }

static int card_of(handle h) { return (int)(h & 255) - 1; }
static int slice_of(handle h) { return (int)(h >> 8) - 1; }
/* Where the description tells about this handle. */
static const char *at(handle h) {
    static char paths[4][64];
    static int turn;
    char *path = paths[turn = (turn + 1) % 4];
    if (slice_of(h) >= 0) snprintf(path, 64, "cards.%d.slices.%d", card_of(h), slice_of(h));
    else snprintf(path, 64, "cards.%d", card_of(h));
    return path;
}
/* The failure that the description asks for in this function, or OK. */
static int told(const char *where, const char *function) {
    const char *delay = get("%s.calls.%s.delay_ms", where, function);
    if (delay) usleep(1000 * atoi(delay));
    if (get("%s.calls.%s.hang", where, function)) for (;;) sleep(1000);
    if (get("%s.calls.%s.crash", where, function)) raise(SIGSEGV);
    return (int)number(get("%s.calls.%s.code", where, function), OK);
}
#define ASK(where) do { int code = told(where, __func__); if (code) return code; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; ASK("driver"); return OK; }
int nvmlShutdown(void) { ASK("driver"); return OK; }
const char *nvmlErrorString(int code) {
    switch (code) {
    case 1: return "Uninitialized";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 13: return "Function Not Found";
    case LOST: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    case 999: return "Unknown Error";
    default: return "simulated error";
    }
}
int nvmlSystemGetDriverVersion(char *out, unsigned n) {
    ASK("driver");
    snprintf(out, n, "%s", get("driver.version") ? get("driver.version") : "550.54.15");
    return OK;
}
int nvmlSystemGetCudaDriverVersion_v2(int *out) { ASK("driver"); *out = (int)number(get("driver.cuda"), 12040); return OK; }
int nvmlDeviceGetCount_v2(unsigned *out) { ASK("driver"); *out = (unsigned)number(get("cards.length"), 0); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *out) {
    if (i >= number(get("cards.length"), 0)) return INVALID;
    *out = i + 1;
    ASK(at(*out));
    return OK;
}
static int string_of(handle h, const char *key, char *out, unsigned n) {
    const char *value = get("%s.%s", at(h), key);
    if (!value) return NOT_SUPPORTED;
    snprintf(out, n, "%s", value);
    return OK;
}
int nvmlDeviceGetName(handle h, char *out, unsigned n) { ASK(at(h)); return string_of(h, "name", out, n); }
int nvmlDeviceGetUUID(handle h, char *out, unsigned n) { ASK(at(h)); return string_of(h, "uuid", out, n); }
int nvmlDeviceGetPciInfo_v3(handle h, pci_info *out) {
    ASK(at(h));
    memset(out, 0, sizeof *out);
    return string_of(h, "pci", out->bus_id, sizeof out->bus_id);
}
int nvmlDeviceGetCudaComputeCapability(handle h, int *major, int *minor) {
    ASK(at(h));
    const char *value = get("cards.%d.capability", card_of(h));
    return value && sscanf(value, "%d.%d", major, minor) == 2 ? OK : NOT_SUPPORTED;
}
static int sizes(handle h, memory2 *m) {
    const char *total = get("%s.memory_mib.total", at(h));
    if (!total) return NOT_SUPPORTED;
    m->total = atoll(total) * MIB;
    m->reserved = number(get("%s.memory_mib.reserved", at(h)), 0) * MIB;
    m->used = number(get("%s.memory_mib.used", at(h)), 0) * MIB;
    m->free = m->total - m->reserved - m->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(handle h, memory2 *m) {
    ASK(at(h));
    return m->version == 0x02000028 ? sizes(h, m) : 25;
}
int nvmlDeviceGetMemoryInfo(handle h, memory1 *m) {
    ASK(at(h));
    memory2 both;
    int code = sizes(h, &both);
    /* The old form counts the driver's own share as used. */
    if (code == OK) { m->total = both.total; m->free = both.free; m->used = both.used + both.reserved; }
    return code;
}
static int running(handle h, const char *type, unsigned *count, process *out) {
    unsigned found = 0, room = *count;
    for (int i = 0; i < number(get("%s.processes.length", at(h)), 0); i++) {
        const char *own = get("%s.processes.%d.type", at(h), i);
        if (strcmp(own ? own : "C", type)) continue;
        if (found < room) {
            const char *used = get("%s.processes.%d.used_mib", at(h), i);
            out[found].pid = (unsigned)number(get("%s.processes.%d.pid", at(h), i), 0);
            out[found].used = used ? atoll(used) * MIB : NOT_TOLD;
            out[found].gpu_instance = out[found].compute_instance = ~0u;
        }
        found++;
    }
    *count = found;
    return found > room ? SMALL : OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *n, process *out) { ASK(at(h)); return running(h, "C", n, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(handle h, unsigned *n, process *out) { ASK(at(h)); return running(h, "G", n, out); }
int nvmlDeviceGetMPSComputeRunningProcesses_v3(handle h, unsigned *n, process *out) { ASK(at(h)); return running(h, "M", n, out); }

static int integer_of(handle h, const char *key, unsigned *out) {
    const char *value = get("%s.%s", at(h), key);
    if (!value) return NOT_SUPPORTED;
    *out = (unsigned)atoll(value);
    return OK;
}
int nvmlDeviceGetMigMode(handle h, unsigned *now, unsigned *pending) {
    ASK(at(h));
    int code = integer_of(h, "mig", now);
    *pending = *now;
    return code;
}
int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *out) { ASK(at(h)); *out = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned i, handle *out) {
    ASK(at(h));
    /* Slices need not be numbered without gaps: `at` is the number NVML gives. */
    for (int s = 0; s < number(get("cards.%d.slices.length", card_of(h)), 0); s++)
        if (number(get("cards.%d.slices.%d.at", card_of(h), s), s) == i) { *out = h + 256 * (s + 1); return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetGpuInstanceId(handle h, unsigned *out) { ASK(at(h)); return integer_of(h, "gpu_instance", out); }
int nvmlDeviceGetComputeInstanceId(handle h, unsigned *out) { ASK(at(h)); return integer_of(h, "compute_instance", out); }
int nvmlDeviceGetAttributes_v2(handle h, attributes *out) {
    ASK(at(h));
    memset(out, 0, sizeof *out);
    if (integer_of(h, "gpu_slices", &out->gpu_slices) || integer_of(h, "compute_slices", &out->compute_slices)) return NOT_SUPPORTED;
    out->memory_mb = number(get("%s.memory_mib.total", at(h)), 0);
    return OK;
}
int nvmlDeviceGetComputeMode(handle h, unsigned *out) { ASK(at(h)); return integer_of(h, "compute_mode", out); }
int nvmlDeviceGetPersistenceMode(handle h, unsigned *out) { ASK(at(h)); return integer_of(h, "persistence", out); }
int nvmlDeviceGetVirtualizationMode(handle h, unsigned *out) { ASK(at(h)); return integer_of(h, "virtualization", out); }
int nvmlDeviceGetEccMode(handle h, unsigned *now, unsigned *pending) {
    ASK(at(h));
    int code = integer_of(h, "ecc", now);
    *pending = (unsigned)number(get("%s.ecc_pending", at(h)), *now);
    return code;
}
/* How two cards meet: the first of `links` that names them, each `pairs` (e.g. "0-1 2-3") or every pair. */
static int link_of(handle a, handle b) {
    char pair[32];
    int low = card_of(a), high = card_of(b);
    if (low > high) { int swap = low; low = high; high = swap; }
    snprintf(pair, sizeof pair, " %d-%d ", low, high);
    for (int i = 0; i < number(get("links.length"), 0); i++) {
        char padded[600];
        const char *pairs = get("links.%d.pairs", i);
        if (!pairs) return i;
        snprintf(padded, sizeof padded, " %s ", pairs);
        if (strstr(padded, pair)) return i;
    }
    return -1;
}
int nvmlDeviceGetTopologyCommonAncestor(handle a, handle b, unsigned *out) {
    ASK(at(a));
    int link = link_of(a, b);
    if (link < 0) return NOT_SUPPORTED;
    *out = (unsigned)number(get("links.%d.level", link), 50);
    return OK;
}
int nvmlDeviceGetP2PStatus(handle a, handle b, unsigned caps, unsigned *out) {
    ASK(at(a));
    int link = link_of(a, b);
    if (link < 0) return NOT_SUPPORTED;
    *out = caps == 2 ? (number(get("links.%d.nvlinks", link), 0) ? 0 : 5) : (unsigned)number(get("links.%d.p2p", link), 0);
    return OK;
}
/* The cards a card's NVLinks go to, one after the other; over a switch all go there. */
static int nvlink_target(handle h, unsigned lane) {
    unsigned seen = 0;
    for (int other = 0; other < number(get("cards.length"), 0); other++) {
        if (other == card_of(h)) continue;
        int link = link_of(h, (handle)other + 1);
        unsigned lanes = link < 0 ? 0 : (unsigned)number(get("links.%d.nvlinks", link), 0);
        if (lanes && get("links.%d.switch", link)) return lane < lanes ? 1000 : -1;
        if (lane < seen + lanes) return other;
        seen += lanes;
    }
    return -1;
}
int nvmlDeviceGetNvLinkState(handle h, unsigned lane, unsigned *active) {
    ASK(at(h));
    if (lane >= 18 || !get("links.length")) return NOT_SUPPORTED;
    *active = nvlink_target(h, lane) >= 0;
    return OK;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(handle h, unsigned lane, unsigned *out) {
    ASK(at(h));
    *out = nvlink_target(h, lane) == 1000 ? 2 : 0;
    return OK;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(handle h, unsigned lane, pci_info *out) {
    ASK(at(h));
    int target = nvlink_target(h, lane);
    memset(out, 0, sizeof *out);
    if (target < 0) return NOT_SUPPORTED;
    if (target == 1000) { snprintf(out->bus_id, sizeof out->bus_id, "00000000:C0:00.0"); return OK; }
    return string_of((handle)target + 1, "pci", out->bus_id, sizeof out->bus_id);
}
