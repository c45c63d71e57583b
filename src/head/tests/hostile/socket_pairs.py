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
letters, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt("send to another's name", lambda: letters.sendto(b"x", inputs["datagrams"]))
attempt("send to an abstract name", lambda: letters.sendto(b"x", "\0chimera"))
attempt("send to a name", lambda: one.sendto(b"x", inputs["datagrams"]))
attempt("larger pipes", lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 20))
for name, request in (("interfaces", 0x8912), ("addresses", 0x8915), ("hardware", 0x8927), ("owner", 0x8901)):
    attempt(name, lambda: fcntl.ioctl(one, request, b"lo".ljust(40, b"\0")))
#---
# contained
# What programs do with them: streams, records, letters.
import asyncio, multiprocessing, socket, subprocess, threading
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    one.send(b"x")
    one.sendall(b"y")
    assert other.recv(1) + other.recv(1) == b"xy"
async def talk():
    program = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return (await program.communicate(b"z"))[0]
assert asyncio.run(talk()) == b"z"
one, other = multiprocessing.Pipe()
one.send({"a": 1})
assert other.recv() == {"a": 1}
#---
# ends: OutOfMemory
# What waits in sockets is the memory of no process.
import socket, time
for _ in range(4): os.fork()
held = []
try:
    while True:
        held.append(socket.socketpair())
        for end in held[-1]:
            end.setblocking(False)
            try:
                while True: end.send(bytes(65536))
            except BlockingIOError: pass
except OSError: pass
time.sleep(600)
