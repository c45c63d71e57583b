# refused
import socket
for family in range(46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        attempt(f"socket {family} {kind}", lambda: socket.socket(family, kind))
        if family != socket.AF_UNIX:
            attempt(f"pair {family} {kind}", lambda: socket.socketpair(family, kind))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", inputs["port"]), 1))
one, other = socket.socketpair()
one.send(b"x")
assert other.recv(1) == b"x"
