# ends: ProcessLimitExceeded
import time
for _ in range(1000):
    if os.fork() == 0: os._exit(0)
time.sleep(600)
