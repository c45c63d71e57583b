# ends: DiskLimitExceeded
import time
for number in range(9): open(str(number), "wb").write(b"x" * (16 << 20))
time.sleep(600)
#---
# ends: DiskLimitExceeded
# A single file, larger than any may be, though it has no content.
file = open("sparse", "wb")
file.seek(1 << 40)
file.write(b"x")
file.flush()
#---
# ends: DiskLimitExceeded
import time
for number in range(40_000): open(str(number), "w").close()
time.sleep(600)
#---
# ends: DiskLimitExceeded
import time
open("file", "wb").write(b"x" * (1 << 20))
for number in range(40_000): os.link("file", f"link {number}")
time.sleep(600)
#---
# ends: DiskLimitExceeded
# In no folder any more, but open.
import time
held = []
for _ in range(9):
    held.append(open("file", "wb", buffering=0))
    held[-1].write(b"x" * (16 << 20))
    os.unlink("file")
time.sleep(600)
#---
# ends: DiskLimitExceeded
# Not even open any more, but mapped.
import mmap, time
held = []
for _ in range(9):
    file = open("file", "w+b", buffering=0)
    file.write(b"x" * (16 << 20))
    held.append(mmap.mmap(file.fileno(), 16 << 20))
    file.close()
    os.unlink("file")
time.sleep(600)
#---
# ends: DiskLimitExceeded
# Open in a process that cannot be looked into, because its program cannot be read.
import shutil
for number in range(9):
    held = os.open("file", os.O_RDWR | os.O_CREAT)
    os.write(held, b"x" * (16 << 20))
    os.set_inheritable(held, True)
    os.unlink("file")
shutil.copy("/bin/sleep", "sleep")
os.chmod("sleep", 0o111)
os.execv("./sleep", ["sleep", "600"])
#---
# ends: DiskLimitExceeded
import time
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
os.chmod(".", 0)
time.sleep(600)
