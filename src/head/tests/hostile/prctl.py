# refused
def prctl(option, *arguments):
    given = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *given) == -1: raise OSError(ctypes.get_errno(), "")
attempt("new privileges again", lambda: prctl(38, 0))
attempt("memory hidden", lambda: prctl(4, 0))
attempt("memory shown", lambda: prctl(4, 1))
attempt("outlive the zygote", lambda: prctl(1, 0))
attempt("a signal that can be caught", lambda: prctl(1, signal.SIGTERM))
attempt("adopt", lambda: prctl(36, 1))
attempt("share a core", lambda: prctl(62, 1, inputs["agent"], 0, 0))
attempt("let the agent trace", lambda: prctl(0x59616d61, inputs["agent"]))
attempt("filter", lambda: prctl(22, 1))
attempt("securebits", lambda: prctl(28, 1))
attempt("keep capabilities", lambda: prctl(8, 1))
attempt("ambient capability", lambda: prctl(47, 2, 21))
attempt("layout of memory", lambda: prctl(35, 1, 0))
attempt("speculation", lambda: prctl(53, 0, 2))
prctl(1, signal.SIGKILL)
