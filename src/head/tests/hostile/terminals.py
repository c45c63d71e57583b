# refused
import fcntl
for descriptor in (0, 1, 2):
    attempt(f"type on {descriptor}", lambda: fcntl.ioctl(descriptor, 0x5412, b"x"))
    attempt(f"take {descriptor}", lambda: fcntl.ioctl(descriptor, 0x540e, 0))
    attempt(f"console {descriptor}", lambda: fcntl.ioctl(descriptor, 0x541c, b"\x03"))
attempt("the terminal", lambda: open("/dev/tty"))
attempt("a new one", lambda: os.openpty())
