# refused
for name, process in (("agent", inputs["agent"]), ("zygote", os.getppid()), ("init", 1), ("group of the zygote", -os.getpgid(os.getppid()))):
    for number in (0, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL, signal.SIGRTMIN):
        attempt(f"{name} {number}", lambda: os.kill(process, number))
    if process > 0:
        attempt(f"thread of the {name}", lambda: call("tgkill", process, process, signal.SIGKILL))
        attempt(f"thread alone of the {name}", lambda: call("tkill", process, signal.SIGKILL))
        attempt(f"queue to the {name}", lambda: call("rt_sigqueueinfo", process, signal.SIGTERM, 0))
