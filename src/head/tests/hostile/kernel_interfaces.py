# refused
for name in ("io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "bpf", "perf_event_open", "keyctl", "add_key", "request_key",
             "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "mount_setattr", "kexec_load", "init_module", "finit_module",
             "delete_module", "reboot", "swapon", "sethostname", "settimeofday", "clock_settime", "syslog", "acct", "quotactl", "personality",
             "seccomp", "landlock_create_ruleset", "memfd_create", "memfd_secret", "name_to_handle_at", "open_by_handle_at", "lookup_dcookie",
             "move_pages", "migrate_pages", "iopl", "ioperm", "modify_ldt", "vhangup", "nfsservctl", "uselib", "clone3"):
    if name in inputs["calls"]:
        attempt(name, lambda: call(name, 8, 0, 0, 0, 0, 0))
# The other ways into the kernel of the same machine.
for number in (39, 56, 101, 425):
    def odd(number=number):
        if libc.syscall(ctypes.c_long(0x40000000 + number), 0, 0, 0) == -1:
            raise OSError(ctypes.get_errno(), "")
    attempt(f"x32 call {number}", odd)
for number in (999, 5000, 1 << 31):
    attempt(f"no call {number}", lambda: libc.syscall(ctypes.c_long(number)) == -1 and (_ for _ in ()).throw(OSError(ctypes.get_errno(), "")))
