/* The N-th change to anything below a folder fails as a disk does; loaded before the C library (LD_PRELOAD).
 * Python's own calls end here, too: nothing of the program under test knows. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char root[4096];
static long failing, seen;
static int number;

/* Called by the test in the forked child: the first `n` changes succeed, each later one fails; n < 0 only counts. */
void disk_arm(const char *folder, long n, int fault) {
    strncpy(root, folder, sizeof root - 1);
    failing = n;
    number = fault;
    seen = 0;
}
long disk_seen(void) { return seen; }

static int fails(const char *path) {
    if (!root[0] || strncmp(path, root, strlen(root))) return 0;
    if (seen++ != failing) return 0;
    errno = number;
    return 1;
}
static int fails_at(int folder, const char *path) {
    char at[64], full[8192];
    ssize_t size;
    if (path[0] == '/' || folder == AT_FDCWD) return fails(path);
    snprintf(at, sizeof at, "/proc/self/fd/%d", folder);
    size = readlink(at, full, 4096);
    if (size < 0) return 0;
    snprintf(full + size, sizeof full - size, "/%s", path);
    return fails(full);
}
static int fails_fd(int handle) {
    int kept = errno, result;
    char at[64], full[4096];
    ssize_t size;
    snprintf(at, sizeof at, "/proc/self/fd/%d", handle);
    size = readlink(at, full, sizeof full - 1);
    if (size < 0) { errno = kept; return 0; }
    full[size] = 0;
    result = fails(full);
    if (!result) errno = kept;
    return result;
}
#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
    return fails_fd(fd) ? -1 : REAL(ssize_t, write, int, const void *, size_t)(fd, data, size);
}
int fsync(int fd) { return fails_fd(fd) ? -1 : REAL(int, fsync, int)(fd); }
int rename(const char *from, const char *to) {
    return fails(to) ? -1 : REAL(int, rename, const char *, const char *)(from, to);
}
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(int, mkdir, const char *, mode_t)(path, mode); }
int symlink(const char *to, const char *path) {
    return fails(path) ? -1 : REAL(int, symlink, const char *, const char *)(to, path);
}
int chmod(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(int, chmod, const char *, mode_t)(path, mode); }
ssize_t sendfile(int out, int in, off_t *from, size_t size) {
    return fails_fd(out) ? -1 : REAL(ssize_t, sendfile, int, int, off_t *, size_t)(out, in, from, size);
}
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) {
    MODE(flags)
    if ((flags & O_CREAT) && fails(path)) return -1;
    return REAL(int, open, const char *, int, ...)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    if ((flags & O_CREAT) && fails(path)) return -1;
    return REAL(int, open64, const char *, int, ...)(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    if ((flags & O_CREAT) && fails_at(at, path)) return -1;
    return REAL(int, openat, int, const char *, int, ...)(at, path, flags, mode);
}
