/* Count the calls with which a process changes files, and end it before the one that it was told.
 *
 * Preloaded into a process that calls kill_at(n, half) when it is ready: before the n-th such call from then on the
 * process kills itself with SIGKILL. With half != 0 only writes count, and the n-th is carried out to its middle first.
 * Writes to anything but regular files (pipes, terminals) do not count. calls_so_far() tells how many there were.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long target = -1, count = 0;
static int halves = 0;

void kill_at(long number, int half) { target = number; halves = half; count = 0; }
long calls_so_far(void) { return count; }

static void *original(const char *name) { return dlsym(RTLD_NEXT, name); }
static void die(void) { kill(getpid(), SIGKILL); pause(); }

/* 1 if this is the call before which to die */
static int due(void) {
    if (target < 0) return 0;
    return ++count == target;
}

static int is_regular(int descriptor) {
    struct stat status;
    return fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

#define BEFORE if (!halves && due()) die();

#define WRITE_AT(name, offset_type)                                                                     \
    ssize_t name(int descriptor, const void *data, size_t size, offset_type where) {                    \
        ssize_t (*call)(int, const void *, size_t, offset_type) = original(#name);                      \
        if (is_regular(descriptor) && due()) { if (halves) call(descriptor, data, size / 2, where); die(); } \
        return call(descriptor, data, size, where);                                                     \
    }
WRITE_AT(pwrite, off_t)
WRITE_AT(pwrite64, off64_t)

ssize_t write(int descriptor, const void *data, size_t size) {
    ssize_t (*call)(int, const void *, size_t) = original("write");
    if (target >= 0 && is_regular(descriptor) && due()) { if (halves) call(descriptor, data, size / 2); die(); }
    return call(descriptor, data, size);
}

#define ONE_PATH(name) int name(const char *path) { int (*call)(const char *) = original(#name); BEFORE return call(path); }
ONE_PATH(unlink)
ONE_PATH(rmdir)

int unlinkat(int at, const char *path, int flags) {
    int (*call)(int, const char *, int) = original("unlinkat"); BEFORE return call(at, path, flags);
}
int mkdir(const char *path, mode_t mode) { int (*call)(const char *, mode_t) = original("mkdir"); BEFORE return call(path, mode); }
int rename(const char *from, const char *to) {
    int (*call)(const char *, const char *) = original("rename"); BEFORE return call(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    int (*call)(int, const char *, int, const char *) = original("renameat"); BEFORE return call(a, from, b, to);
}
int fsync(int descriptor) { int (*call)(int) = original("fsync"); BEFORE return call(descriptor); }
int fdatasync(int descriptor) { int (*call)(int) = original("fdatasync"); BEFORE return call(descriptor); }
int ftruncate(int descriptor, off_t size) { int (*call)(int, off_t) = original("ftruncate"); BEFORE return call(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) {
    int (*call)(int, off64_t) = original("ftruncate64"); BEFORE return call(descriptor, size);
}
int posix_fallocate(int descriptor, off_t from, off_t size) {
    int (*call)(int, off_t, off_t) = original("posix_fallocate"); BEFORE return call(descriptor, from, size);
}
int posix_fallocate64(int descriptor, off64_t from, off64_t size) {
    int (*call)(int, off64_t, off64_t) = original("posix_fallocate64"); BEFORE return call(descriptor, from, size);
}

#define OPEN(name)                                                                    \
    int name(const char *path, int flags, ...) {                                      \
        int (*call)(const char *, int, ...) = original(#name);                        \
        va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
        if (flags & O_CREAT) { BEFORE }                                               \
        return call(path, flags, mode);                                               \
    }
OPEN(open)
OPEN(open64)
