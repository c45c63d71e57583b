# contained
# Signals without end, timers without number, and every pipe full.
import fcntl, time
signal.signal(signal.SIGUSR1, lambda *_: None)
for _ in range(50_000): os.kill(os.getpid(), signal.SIGUSR1)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
for _ in range(100_000): pass
signal.setitimer(signal.ITIMER_REAL, 0)
timer = ctypes.c_int()
timers = 0
while timers < 200_000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0: timers += 1
pipes = []
try:
    while True:
        pipes.append(os.pipe())
        fcntl.fcntl(pipes[-1][1], 1031, 1 << 20)
except OSError: pass
for _, end in pipes:
    os.set_blocking(end, False)
    try:
        while True: os.write(end, b"x" * 65536)
    except BlockingIOError: pass
#---
# ends: TimedOut
# So many signals that nothing else is ever done.
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
while True: pass
