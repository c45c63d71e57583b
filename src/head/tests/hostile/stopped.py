# ends: TimedOut
os.kill(0, signal.SIGSTOP)
#---
# ends: TimedOut
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True:
    try:
        while True: pass
    except BaseException: pass
