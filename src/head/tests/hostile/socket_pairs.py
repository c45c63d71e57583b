# refused
import array, fcntl, socket
one, other = socket.socketpair()
file = open("file", "w")
descriptors = array.array("i", [file.fileno()])
attempt("send a descriptor", lambda: one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]))
attempt("send many", lambda: call("sendmmsg", one.fileno(), 0, 0, 0))
attempt("a filter", lambda: one.setsockopt(socket.SOL_SOCKET, 26, b"\0" * 16))
attempt("larger buffers", lambda: one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 28))
attempt("an abstract name", lambda: one.bind("\0chimera"))
attempt("a name", lambda: one.bind("socket"))
attempt("the agent's abstract name", lambda: one.connect("\0chimera"))
attempt("listen", one.listen)
for name, request in (("interfaces", 0x8912), ("addresses", 0x8915), ("hardware", 0x8927), ("owner", 0x8901)):
    attempt(name, lambda: fcntl.ioctl(one, request, b"lo".ljust(40, b"\0")))
