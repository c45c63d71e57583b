# ends: OutOfMemory
blocks = []
while True: blocks.append(bytearray(16 << 20))
#---
# ends: OutOfMemory
import mmap
blocks = []
try:
    while True:
        block = mmap.mmap(-1, 64 << 20)
        for page in range(0, 64 << 20, 4096): block[page] = 1
        blocks.append(block)
except OSError: raise MemoryError
#---
# ends: OutOfMemory
# Each a little, together too much.
import time
for _ in range(4): os.fork()
block = bytearray(48 << 20)
time.sleep(600)
#---
# ends: OutOfMemory
deep = eval("[" * 90 + "]" * 90)
text = "x"
while True: text += text
#---
# ends: OutOfMemory
# Programs that share nothing with the zygote, each with no more than it had.
import subprocess, sys, time
programs = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(60)]
time.sleep(600)
#---
# ends: OutOfMemory
# Copies of what the zygote had, each written to.
import gc, time
for _ in range(80):
    if os.fork() == 0:
        gc.unfreeze()
        gc.collect()
        break
time.sleep(600)
