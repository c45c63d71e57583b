# refused
for process in ("self", "thread-self", str(os.getpid()), str(os.getppid()), "1", str(inputs["agent"])):
    for name in ("mem", "environ", "maps", "cmdline", "status", "stat", "auxv", "smaps", "wchan", "stack", "syscall"):
        attempt(f"/proc/{process}/{name}", lambda: open(f"/proc/{process}/{name}", "rb").read(1))
    for name in ("fd", "task", "ns", "map_files", "root"):
        attempt(f"/proc/{process}/{name}", lambda: os.listdir(f"/proc/{process}/{name}"))
for process in (str(inputs["agent"]), str(os.getppid())):
    for name in ("exe", "cwd", "root", "fd/0", "ns/net"):
        attempt(f"link /proc/{process}/{name}", lambda: os.readlink(f"/proc/{process}/{name}"))
for path in ("/proc/self/mem", "/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/attr/current", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"):
    attempt("write " + path, lambda: open(path, "wb"))
for path in ("/proc/net/tcp", "/proc/mounts", "/proc/kallsyms", "/proc/keys", "/proc/loadavg", "/proc/sysvipc/shm", "/proc/locks", "/sys/class/net", "/sys/kernel/debug", "/sys/fs/cgroup"):
    attempt(path, lambda: os.listdir(path) if path.startswith("/sys") else open(path).read(1))
