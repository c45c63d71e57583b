# refused
kinds = {"mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
for name, flag in kinds.items():
    attempt("clone " + name, lambda: call("clone", flag | 17, 0, 0, 0, 0))
    attempt("unshare " + name, lambda: call("unshare", flag))
attempt("unshare time", lambda: call("unshare", 0x80))
attempt("setns", lambda: call("setns", os.pidfd_open(inputs["agent"]), 0x7e020000))
attempt("session", os.setsid)
attempt("group", lambda: os.setpgid(0, 0))
attempt("group of the zygote", lambda: os.setpgid(0, os.getpgid(os.getppid())))
for name in ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset"):
    attempt(name, lambda: call(name, 0, 0, 0))
