/* path - joins and takes apart the names of files */
#include "base/file.h"

#include <stdio.h>

char *path_join(char *buf, size_t size, const char *folder, const char *name)
{
    size_t n = strlen(folder);
    const char *slash = n == 0 || folder[n - 1] == '/' ? "" : "/";
    snprintf(buf, size, "%s%s%s", folder, slash, name);
    return buf;
}

struct str path_base(struct str path)
{
    while (path.len > 1 && path.ptr[path.len - 1] == '/')
        path.len--;
    const char *slash = path.len > 1 ? memrchr(path.ptr, '/', path.len) : NULL;
    return slash ? str_from(path, (size_t)(slash - path.ptr) + 1) : path;
}

struct str path_stem(struct str path)
{
    struct str base = path_base(path);
    const char *dot = base.len > 1 ? memrchr(base.ptr + 1, '.', base.len - 1) : NULL;
    if (dot)
        base.len = (size_t)(dot - base.ptr);
    return base;
}
