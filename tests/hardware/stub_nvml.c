/* A driver for tests. STUB_CARDS lists the cards by kind, one letter each:
 *   a  A100 80GB      t  Tesla T4        g  GB10, whose memory is not told
 *   m  A100 with MIG on and two slices   l  a card that fell off the bus
 *   h  a card whose memory call never returns   c  a card whose memory call crashes
 *   o  an A100 behind an old driver: no memory call of version 2
 *   3  RTX 3080 12 GB
 * STUB_INIT is the code nvmlInit returns, STUB_INIT_HANG makes it hang.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, NO_FUNCTION = 13, LOST = 15 };
#define MIB (1ULL << 20)

typedef struct { unsigned long long total, free, used; } memory1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;
/* A handle is 1 + index of the card, plus 256 * (1 + slice) for a slice. */
typedef unsigned long handle;

static const char *cards(void) { const char *c = getenv("STUB_CARDS"); return c ? c : ""; }
static int index_of(handle h) { return (int)(h & 255) - 1; }
static int slice_of(handle h) { return (int)(h >> 8) - 1; }
static char kind(handle h) { return cards()[index_of(h)]; }
static void hang(void) { for (;;) sleep(1000); }

int nvmlInitWithFlags(unsigned flags) {
    const char *code = getenv("STUB_INIT");
    (void)flags;
    if (getenv("STUB_INIT_HANG")) hang();
    return code ? atoi(code) : OK;
}
int nvmlShutdown(void) { hang(); return OK; }
const char *nvmlErrorString(int code) {
    switch (code) {
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case LOST: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    case 3: return "Not Supported";
    case 999: return "Unknown Error";
    default: return "stub error";
    }
}
int nvmlSystemGetDriverVersion(char *out, unsigned n) { snprintf(out, n, "550.54.15"); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = 12040; return OK; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)strlen(cards()); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *out) {
    if (i >= strlen(cards())) return INVALID;
    if (cards()[i] == 'l') return LOST;
    *out = i + 1;
    return OK;
}
int nvmlDeviceGetName(handle h, char *out, unsigned n) {
    const char *name = "NVIDIA A100-SXM4-80GB";
    if (slice_of(h) >= 0) name = slice_of(h) ? "NVIDIA A100-SXM4-80GB MIG 1g.10gb" : "NVIDIA A100-SXM4-80GB MIG 3g.40gb";
    else if (kind(h) == 't') name = "Tesla T4";
    else if (kind(h) == 'g') name = "NVIDIA GB10";
    else if (kind(h) == '3') name = "NVIDIA GeForce RTX 3080";
    snprintf(out, n, "%s", name);
    return OK;
}
int nvmlDeviceGetUUID(handle h, char *out, unsigned n) {
    if (slice_of(h) >= 0) snprintf(out, n, "MIG-%d%d000000-aaaa-bbbb-cccc-000000000000", index_of(h), slice_of(h));
    else snprintf(out, n, "GPU-%d0000000-1111-2222-3333-444444444444", index_of(h));
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(handle h, int *major, int *minor) {
    *major = 8; *minor = 0;
    if (kind(h) == 't') { *major = 7; *minor = 5; }
    if (kind(h) == 'g') { *major = 12; *minor = 1; }
    if (kind(h) == '3') { *minor = 6; }
    return OK;
}
static int sizes(handle h, memory2 *m) {
    if (kind(h) == 'h') hang();
    if (kind(h) == 'c') raise(SIGSEGV);
    if (kind(h) == 'g') return NOT_SUPPORTED;
    m->total = 81920 * MIB; m->reserved = 582 * MIB; m->used = 1018 * MIB;
    if (kind(h) == 't') { m->total = 15360 * MIB; m->reserved = 400 * MIB; m->used = 0; }
    if (kind(h) == '3') { m->total = 12288 * MIB; m->reserved = 288 * MIB; m->used = 0; }
    if (slice_of(h) >= 0) { m->total = (slice_of(h) ? 9728 : 40192) * MIB; m->reserved = 0; m->used = 64 * MIB; }
    m->free = m->total - m->reserved - m->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(handle h, memory2 *m) {
    if (m->version != 0x02000028) return 25;
    return kind(h) == 'o' ? NO_FUNCTION : sizes(h, m);
}
int nvmlDeviceGetMemoryInfo(handle h, memory1 *m) {
    memory2 both;
    int code = sizes(h, &both);
    if (code == OK) { m->total = both.total; m->free = both.free; m->used = both.used + both.reserved; }
    return code;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *count, process *out) {
    if (slice_of(h) >= 0) return NOT_SUPPORTED;
    if (kind(h) != 'a') { *count = 0; return OK; }
    if (*count < 2) { *count = 2; return SMALL; }
    *count = 2;
    out[0].pid = 4242; out[0].used = 1000 * MIB;
    out[1].pid = 4243; out[1].used = ~0ULL; /* Windows: not told */
    return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(handle h, unsigned *count, process *out) {
    (void)h; (void)out; *count = 0; return OK;
}
int nvmlDeviceGetMigMode(handle h, unsigned *now, unsigned *pending) {
    if (kind(h) == 'g' || kind(h) == 't' || kind(h) == '3') return NOT_SUPPORTED;
    *now = *pending = kind(h) == 'm';
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *out) { (void)h; *out = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned i, handle *out) {
    /* Slices need not be numbered without gaps. */
    if (i != 0 && i != 3) return NOT_FOUND;
    *out = h + 256 * (i ? 2 : 1);
    return OK;
}
