# contained
# Children that nobody waits for, that ignore every signal, twice removed, stopped, and with the zygote as their parent.
import time
def stay():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True: time.sleep(600)
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0: stay()
        os._exit(0)
if os.fork() == 0: stay()
stopped = os.fork()
if stopped == 0: os.kill(os.getpid(), signal.SIGSTOP); stay()
if libc.syscall(ctypes.c_long(inputs["calls"]["clone"]), ctypes.c_long(0x8000 | 17), 0, 0, 0, 0) == 0: stay()
