# refused
import resource
names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
for name in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CPU", "RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE"):
    number = getattr(resource, name)
    soft, hard = resource.getrlimit(number)
    assert hard != resource.RLIM_INFINITY, name
    attempt("raise " + name, lambda: resource.setrlimit(number, (soft, hard + 1)))
    attempt("lift " + name, lambda: resource.setrlimit(number, (resource.RLIM_INFINITY,) * 2))
    for process in (inputs["agent"], os.getppid()):
        attempt(f"{name} of {process}", lambda: resource.prlimit(process, number, (1, 1)))
for name, value in result.items():
    # What Python says for "not permitted" here.
    result[name] = "EPERM" if value == "ValueError" else value
attempt("nicer", lambda: os.nice(-20))
attempt("priority of the agent", lambda: os.setpriority(os.PRIO_PROCESS, inputs["agent"], 19))
attempt("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
attempt("affinity of the agent", lambda: os.sched_setaffinity(inputs["agent"], {0}))
attempt("input and output", lambda: call("ioprio_set", 1, 0, 0x2000))
