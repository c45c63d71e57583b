# refused
import fcntl
library = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
attempt("notify", lambda: fcntl.fcntl(library, 1026, 0x80000003))
attempt("lease", lambda: fcntl.fcntl(library, 1024, 0))
attempt("signal of the kernel", lambda: fcntl.fcntl(library, 8, inputs["agent"]))
attempt("inotify", lambda: call("inotify_init1", 0))
attempt("fanotify", lambda: call("fanotify_init", 0, 0))
