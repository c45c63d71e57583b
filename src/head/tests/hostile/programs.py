# refused
import shutil, subprocess, sys
from functools import partial
# None of them can be more than the run that starts it.
for program in ("su", "sudo", "mount", "umount", "passwd", "chsh", "newgrp", "pkexec", "ping"):
    path = shutil.which(program, path="/bin:/usr/bin:/sbin:/usr/sbin")
    if path is None: continue
    done = subprocess.run([path, "--version"], capture_output=True)
    probe = subprocess.run([path, "-c", "id"], capture_output=True, input=b"")
    assert b"uid=0" not in probe.stdout or os.getuid() == 0, program
inner = "import os, socket, sys\ntry: (open('/etc/passwd') if sys.argv[1] == 'file' else socket.socket())\nexcept PermissionError: sys.exit(13)"
for what in ("file", "socket"):
    done = subprocess.run([sys.executable, "-I", "-c", inner, what], capture_output=True)
    result[what] = {13: "EACCES"}.get(done.returncode)
own = shutil.copy(shutil.which("cat", path="/bin:/usr/bin"), "cat")
os.chmod(own, 0o4755)
done = subprocess.run([os.path.abspath(own), "/etc/passwd"], capture_output=True)
result["a program of its own"] = "EACCES" if done.returncode and not done.stdout else None
attempt("a program from elsewhere", lambda: subprocess.run([inputs["program"]]))
assert libc.prctl(39, 0, 0, 0, 0) == 1, "new privileges"
