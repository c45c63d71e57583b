# refused
from multiprocessing import shared_memory
attempt("posix", lambda: shared_memory.SharedMemory(create=True, size=4096))
attempt("semaphore", lambda: __import__("multiprocessing").Lock())
attempt("a file", lambda: open("/dev/shm/chimera", "w"))
attempt("list", lambda: os.listdir("/dev/shm"))
attempt("segment", lambda: call("shmget", 0x4348, 4096, 0o1666))
attempt("attach", lambda: call("shmat", 0, 0, 0))
attempt("messages", lambda: call("msgget", 0x4348, 0o1666))
attempt("semaphores", lambda: call("semget", 0x4348, 1, 0o1666))
attempt("queue", lambda: call("mq_open", b"chimera", 0o102, 0o600, 0))
attempt("memory file", lambda: os.memfd_create("chimera"))
