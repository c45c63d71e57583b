# refused
agent = inputs["agent"]
for name, process in (("agent", agent), ("zygote", os.getppid()), ("init", 1)):
    attempt("attach to the " + name, lambda: call("ptrace", 16, process, 0, 0))
    attempt("seize the " + name, lambda: call("ptrace", 0x4206, process, 0, 0))
    attempt("read the memory of the " + name, lambda: call("process_vm_readv", process, 0, 0, 0, 0, 0))
    attempt("write the memory of the " + name, lambda: call("process_vm_writev", process, 0, 0, 0, 0, 0))
    attempt("compare with the " + name, lambda: call("kcmp", os.getpid(), process, 0, 0, 0))
attempt("be traced", lambda: call("ptrace", 0, 0, 0, 0))
descriptor = os.pidfd_open(agent)
attempt("take a descriptor", lambda: call("pidfd_getfd", descriptor, 0, 0))
attempt("advise", lambda: call("process_madvise", descriptor, 0, 0, 0, 0))
attempt("release", lambda: call("process_mrelease", descriptor, 0))
attempt("signal by descriptor", lambda: signal.pidfd_send_signal(descriptor, 0))
