# refused
attempt("character device", lambda: os.mknod("device", 0o020666, os.makedev(1, 5)))
attempt("block device", lambda: os.mknod("disk", 0o060666, os.makedev(8, 0)))
attempt("socket", lambda: os.mknod("socket", 0o140666))
for name in ("tty", "ptmx", "mem", "kmsg", "fuse", "kvm", "net/tun", "sda", "vda", "nvidia0", "nvidiactl"):
    attempt("/dev/" + name, lambda: os.open("/dev/" + name, os.O_RDWR | os.O_NONBLOCK))
# Left behind for whoever comes to tidy up.
os.mkfifo("fifo")
os.symlink("/", "root")
os.symlink("loop", "loop")
os.symlink("/dev/zero", "endless")
for _ in range(50):
    os.mkdir("d")
    os.mkfifo("d/fifo", 0)
    os.symlink("/", "d/root")
    os.chdir("d")
os.chmod("../../d", 0)
