/* System calls that fail when a test wants them to. Preloaded into a child process.
 *
 * SHIM_CALL: write or sync. SHIM_ERRNO: the number. SHIM_AFTER: so many calls succeed first.
 * SHIM_TIMES: so many fail then. SHIM_SHORT: the first that fails writes a half instead.
 * Only files whose name holds "foldback.db" are touched, and only while SHIM_ARMED is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int is_hit(const char *call, int fd, long *nth) {
    static long calls;
    char link[64], path[4096];
    const char *wanted = getenv("SHIM_CALL"), *armed = getenv("SHIM_ARMED");
    if (!wanted || strcmp(wanted, call) || !armed || access(armed, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "foldback.db") || strstr(path, "foldback.db-lock")) return 0;
    *nth = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) - number("SHIM_AFTER");
    return *nth > 0 && *nth <= number("SHIM_TIMES");
}

static int sync_with(const char *name, int fd) {
    long nth;
    if (is_hit("sync", fd, &nth)) { errno = (int)number("SHIM_ERRNO"); return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}
int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }

static ssize_t pwrite_with(const char *name, int fd, const void *bytes, size_t count, off_t at) {
    long nth;
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, name);
    if (is_hit("write", fd, &nth)) {
        if (nth == 1 && number("SHIM_SHORT")) return real(fd, bytes, count / 2, at);
        errno = (int)number("SHIM_ERRNO");
        return -1;
    }
    return real(fd, bytes, count, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return pwrite_with("pwrite", fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    return pwrite_with("pwrite64", fd, bytes, count, at);
}
ssize_t write(int fd, const void *bytes, size_t count) {
    long nth;
    ssize_t (*real)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (is_hit("write", fd, &nth)) {
        if (nth == 1 && number("SHIM_SHORT")) return real(fd, bytes, count / 2);
        errno = (int)number("SHIM_ERRNO");
        return -1;
    }
    return real(fd, bytes, count);
}
