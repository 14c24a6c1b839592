"""Takes away from Python what other systems lack: /proc, and calls that only Linux has."""

import builtins
import io
import os
import resource
import select
import signal
import sys

LACKING = {
    os: "memfd_create sched_getaffinity sched_setaffinity pidfd_open posix_fallocate "
    "copy_file_range eventfd splice getrandom",
    select: "POLLRDHUP epoll EPOLLIN EPOLL_CLOEXEC",
    resource: "prlimit",
    signal: "pidfd_send_signal",
}
for module, names in LACKING.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "openbsd7"


def without_proc(call):
    def checked(path=".", *args, **kwargs):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return call(path, *args, **kwargs)

    return checked


builtins.open = io.open = without_proc(open)
os.open, os.listdir = without_proc(os.open), without_proc(os.listdir)
