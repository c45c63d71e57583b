# refused
for name in ("tls.key", "tls.crt", "ca.crt", "root.pem"):
    attempt("read " + name, lambda: open(inputs["identity"] + "/" + name).read())
for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/resolv.conf", "/var/run/secrets/token", inputs["secret"]):
    attempt("read " + path, lambda: open(path, "rb").read(1))
for path in ("/", "/tmp", "/proc", "/etc", "/dev", "/sys", "/home", "/root", "../..", inputs["runs"], inputs["identity"]):
    attempt("list " + path, lambda: os.listdir(path))
for path in (*(f"{folder}/chimera-probe-{inputs['agent']}" for folder in ("/tmp", "/var/tmp", "/dev", "/usr", "../..", inputs["runs"])), os.path.dirname(os.__file__) + "/probe.py"):
    attempt("write " + path, lambda: open(path, "w"))
    attempt("make " + path, lambda: os.mkdir(path))
attempt("remove", lambda: os.unlink(inputs["secret"]))
attempt("truncate", lambda: os.truncate(inputs["secret"], 0))
attempt("move in", lambda: os.rename(inputs["secret"], "mine"))
attempt("move out", lambda: os.rename(os.getcwd(), inputs["runs"] + "/elsewhere"))
attempt("hard link", lambda: os.link(inputs["secret"], "mine"))
os.symlink(inputs["secret"], "link")
attempt("through a link", lambda: open("link").read())
