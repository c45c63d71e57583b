//! The sandbox, in the pods that the operator really makes: hostile documents are refused or contained, and the head
//! goes on as if nothing had been. Each document tries, and returns what it met.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{MamlWorkflow, reasons};
use e2e::{
    Namespace,
    documents::{self, Document},
    heads, in_namespace, runs,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};

/// Runs a document in a namespace of its own and sees to it that its head has taken no harm.
async fn contained(stem: &str, test: impl AsyncFnOnce(&Namespace)) {
    in_namespace(stem, async |space| {
        heads::start(space, heads::small("small")).await;
        let before = heads::fingerprint(space, "small").await;
        test(space).await;
        let after = runs::run(space, runs::workflow("after", documents::small())).await;
        runs::assert_succeeded(space, &after).await;
        let head = heads::ready(space, "small").await;
        assert_eq!(head.status.unwrap().regenerations, 0);
        assert_eq!(heads::fingerprint(space, "small").await, before);
    })
    .await;
}

async fn run(space: &Namespace, name: &str, document: Document, inputs: Value) -> Map<String, Value> {
    let Value::Object(inputs) = inputs else {
        panic!("inputs are an object")
    };
    let mut workflow = runs::workflow(name, document);
    workflow.spec.inputs = inputs;
    let done = runs::run(space, workflow).await;
    runs::assert_succeeded(space, &done).await;
    runs::status(&done).outputs.unwrap()
}

/// What each attempt met must be one of these errors; null, that is success, never is.
fn assert_refused(outputs: &Map<String, Value>, errors: &[&str]) {
    let result = outputs["result"].as_object().unwrap();
    assert!(!result.is_empty());
    let allowed: Vec<_> = result
        .iter()
        .filter(|(_, error)| !error.as_str().is_some_and(|error| errors.contains(&error)))
        .collect();
    assert!(allowed.is_empty(), "not refused: {allowed:?}");
}

const REFUSED: &[&str] = &["PermissionError:EACCES", "PermissionError:EPERM"];

#[tokio::test]
async fn the_agents_keys_and_memory_cannot_be_read() {
    contained("keys", async |space| {
        let code = "\
for name in ('tls.key', 'tls.crt', 'ca.crt', 'root.pem', '..data/tls.key'):
    attempt(name, lambda: open('/etc/chimera/identity/' + name).read())
attempt('list', lambda: os.listdir('/etc/chimera/identity'))
for process in (1, os.getppid(), 'self'):
    for file in ('mem', 'environ', 'maps', 'cmdline', 'status'):
        attempt(f'/proc/{process}/{file}', lambda: open(f'/proc/{process}/{file}', 'rb').read(1))
    # Its own working folder it may list by any name.
    for folder in ('fd', 'root', 'task') + (() if process == 'self' else ('cwd',)):
        attempt(f'/proc/{process}/{folder}', lambda: os.listdir(f'/proc/{process}/{folder}'))
attempt('/proc', lambda: os.listdir('/proc'))
attempt('service account', lambda: os.listdir('/var/run/secrets'))
seen = sorted(name for name in os.environ if 'KUBERNETES' in name or 'CHIMERA' in name)
";
        let outputs = run(space, "probe", documents::probe(code), json!({})).await;
        // What the pod does not have cannot be found either.
        assert_refused(&outputs, &[REFUSED, &["FileNotFoundError:ENOENT"]].concat());
        let result = outputs["result"].as_object().unwrap();
        assert!(
            REFUSED.contains(&result["tls.key"].as_str().unwrap()),
            "{result:?}"
        );
        assert_eq!(outputs["seen"], json!([]), "variables that tell of the cluster");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_outside_of_the_runs_own_folder() {
    contained("writes", async |space| {
        let code = "\
for path in ('/probe', '/tmp/probe', '/tmp/runs/probe', '/var/tmp/probe', '/dev/shm/probe', '/etc/probe', '/opt/probe', '../../probe', '../../../probe', '/etc/chimera/identity/probe'):
    attempt('write ' + path, lambda: open(path, 'w'))
    attempt('make ' + path, lambda: os.mkdir(path))
attempt('chmod /tmp', lambda: os.chmod('/tmp', 0o777))
attempt('remove the runs', lambda: os.rmdir('/tmp/runs'))
attempt('move myself away', lambda: os.rename(os.getcwd(), '/tmp/elsewhere'))
attempt('device', lambda: os.mknod('device', 0o020666, os.makedev(1, 5)))
for folder in ('.', os.environ['HOME'], os.environ['TMPDIR']):
    with open(folder + '/own', 'w') as file:
        file.write('mine')
    assert open(folder + '/own').read() == 'mine'
";
        let outputs = run(space, "probe", documents::probe(code), json!({})).await;
        let read_only = ["OSError:EROFS", "FileNotFoundError:ENOENT", "OSError:ENOSYS"];
        assert_refused(&outputs, &[REFUSED, &read_only].concat());
        let result = outputs["result"].as_object().unwrap();
        for path in ["write /tmp/probe", "write ../../probe"] {
            assert!(REFUSED.contains(&result[path].as_str().unwrap()), "{path}: {result:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_socket_can_be_opened() {
    contained("sockets", async |space| {
        let code = "\
import socket
for family in ('AF_INET', 'AF_INET6', 'AF_UNIX', 'AF_NETLINK', 'AF_PACKET', 'AF_VSOCK'):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        attempt(f'{family} {kind}', lambda: socket.socket(getattr(socket, family), kind))
attempt('the agent', lambda: socket.create_connection(('127.0.0.1', 7443), 1))
attempt('the API server', lambda: socket.create_connection((inputs['server'], 443), 1))
one, other = socket.socketpair()
one.send(b'x')
assert other.recv(1) == b'x'
";
        let outputs = run(
            space,
            "probe",
            documents::probe(code),
            json!({"server": "198.18.64.1"}),
        )
        .await;
        assert_refused(&outputs, REFUSED);
    })
    .await;
}

#[tokio::test]
async fn calls_that_break_out_are_refused() {
    contained("calls", async |space| {
        let code = "\
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), '')
for name, (number, *arguments) in inputs['calls'].items():
    attempt(name, lambda: call(number, *arguments))
";
        // Numbers of x86_64; on other machines they name other calls.
        let calls = if cfg!(target_arch = "x86_64") {
            json!({
                "ptrace": [101, 16, 1, 0, 0], "process_vm_readv": [310, 1, 0, 0, 0, 0, 0], "mount": [165, 0, 0, 0, 0, 0],
                "unshare": [272, 0x1000_0000], "setns": [308, 3, 0], "bpf": [321, 0, 0, 0], "keyctl": [250, 0, 0, 0, 0, 0],
                "io_uring_setup": [425, 8, 0], "pidfd_getfd": [438, 3, 0, 0], "userfaultfd": [323, 0],
                "perf_event_open": [298, 0, 0, 0, 0, 0], "kexec_load": [246, 0, 0, 0, 0],
            })
        } else {
            json!({})
        };
        let code = format!("{code}attempt('setuid', lambda: os.setuid(0))\n");
        let outputs = run(space, "probe", documents::probe(&code), json!({"calls": calls})).await;
        assert_refused(&outputs, REFUSED);
    })
    .await;
}

/// The first run prints where it is and goes on; the second, on the same head, tries to get at it.
#[tokio::test]
async fn a_run_sees_neither_files_nor_processes_of_another() {
    contained("neighbours", async |space| {
        let code = "\
import os, time
with open('secret', 'w') as file:
    file.write('secret')
print('here', os.getpid(), os.getcwd(), flush=True)
time.sleep(3600)
";
        space
            .create_object(&runs::workflow("first", Document::python(code)))
            .await;
        let first = runs::running(space, "first").await;
        let line = runs::printed(space, &first, "here ").await;
        let mut words = line.split_whitespace().skip(1);
        let (pid, folder) = (
            words.next().unwrap().parse::<i64>().unwrap(),
            words.next().unwrap().to_owned(),
        );

        let code = "\
pid, folder = inputs['pid'], inputs['folder']
attempt('read its file', lambda: open(folder + '/secret').read())
attempt('list its folder', lambda: os.listdir(folder))
attempt('write there', lambda: open(folder + '/more', 'w'))
attempt('list all runs', lambda: os.listdir(os.path.dirname(folder)))
attempt('list /tmp', lambda: os.listdir('/tmp'))
attempt('its memory', lambda: open(f'/proc/{pid}/mem', 'rb'))
attempt('its folder by /proc', lambda: os.listdir(f'/proc/{pid}/cwd'))
for name, other in (('it', pid), ('the agent', 1), ('the zygote', os.getppid())):
    for number in (0, 9, 15, 19):
        attempt(f'signal {number} to {name}', lambda: os.kill(other, number))
attempt('its priority', lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
";
        let outputs = run(
            space,
            "second",
            documents::probe(code),
            json!({"pid": pid, "folder": folder}),
        )
        .await;
        assert_refused(&outputs, REFUSED);

        let still = space.api::<MamlWorkflow>().get("first").await.unwrap();
        assert_eq!(runs::condition(&still, "Complete").reason, reasons::RUNNING);
        runs::annotate(space, "first", api::names::CANCEL_ANNOTATION, "true").await;
        let done = runs::complete(space, "first").await;
        runs::assert_failed(space, &done, reasons::CANCELLED).await;
    })
    .await;
}

/// A process that belongs to another run answers a signal with a refusal; one that is gone, with its absence.
#[tokio::test]
async fn no_process_outlives_its_run() {
    contained("daemons", async |space| {
        let code = "\
import signal, time
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        os.write(write, str(os.getpid()).encode())
        while True:
            time.sleep(60)
    os._exit(0)
os.wait()
seen = int(os.read(read, 20))
os.kill(seen, 0)
attempt('a session of its own', os.setsid)
";
        let outputs = run(space, "first", documents::probe(code), json!({})).await;
        assert_refused(&outputs, REFUSED);
        let code = "attempt('signal', lambda: os.kill(inputs['pid'], 0))\n";
        let outputs = run(
            space,
            "second",
            documents::probe(code),
            json!({"pid": outputs["seen"]}),
        )
        .await;
        assert_refused(&outputs, &["ProcessLookupError:ESRCH"]);
    })
    .await;
}

#[tokio::test]
async fn what_one_run_leaves_the_next_does_not_find() {
    contained("leftovers", async |space| {
        let code = "\
import builtins, json
builtins.left = json.left = 1
os.environ['LEFT'] = '1'
for name in ('HOME', 'TMPDIR'):
    with open(os.environ[name] + '/left', 'w') as file:
        file.write('x')
seen = os.getcwd()
";
        let first = run(space, "first", documents::probe(code), json!({})).await;
        let code = "\
import builtins, json
seen = [hasattr(builtins, 'left'), hasattr(json, 'left'), 'LEFT' in os.environ,
        os.path.exists(os.environ['HOME'] + '/left'), os.path.exists(os.environ['TMPDIR'] + '/left')]
attempt('the former folder', lambda: os.listdir(inputs['folder']))
";
        let second = run(
            space,
            "second",
            documents::probe(code),
            json!({"folder": first["seen"]}),
        )
        .await;
        assert_eq!(second["seen"], json!([false, false, false, false, false]));
        assert_refused(&second, &[REFUSED, &["FileNotFoundError:ENOENT"]].concat());
    })
    .await;
}

#[tokio::test]
async fn a_storm_of_forks_ends_its_run_and_nothing_else() {
    contained("forks", async |space| {
        let code = "\
import os, time
while True:
    try:
        child = os.fork()
    except OSError:
        continue
    if child == 0:
        time.sleep(3600)
        os._exit(0)
    print('child', child, flush=True)
";
        let done = runs::run(space, runs::workflow("storm", Document::python(code))).await;
        runs::assert_failed(space, &done, reasons::PROCESS_LIMIT_EXCEEDED).await;
        let line = runs::printed(space, &done, "child ").await;
        let child: i64 = line.trim_start_matches("child ").parse().unwrap();
        let code = "attempt('signal', lambda: os.kill(inputs['pid'], 0))\n";
        let outputs = run(space, "calm", documents::probe(code), json!({"pid": child})).await;
        assert_refused(&outputs, &["ProcessLookupError:ESRCH"]);
    })
    .await;
}

#[tokio::test]
async fn a_memory_hog_fails_alone() {
    contained("memory", async |space| {
        let hogs = [
            ("arrays", "hoard = []\nwhile True:\n    hoard.append(bytearray(64 << 20))"),
            ("caught", "hoard = []\ntry:\n    while True:\n        hoard.append(bytearray(64 << 20))\nfinally:\n    pass"),
        ];
        for (name, code) in hogs {
            let done = runs::run(space, runs::workflow(name, Document::python(code))).await;
            runs::assert_failed(space, &done, reasons::OUT_OF_MEMORY).await;
        }
    })
    .await;
}

#[tokio::test]
async fn runs_that_take_all_they_may_at_once_leave_their_pod_alone() {
    in_namespace("share", async |space| {
        let mut head = heads::small("small");
        if let Some(limits) = head.spec.resources.as_mut().and_then(|all| all.limits.as_mut()) {
            // Of this each of two runs may use 384 MiB, and 448 MiB of the storage.
            limits.memory = Some(Quantity("1Gi".to_owned()));
        }
        heads::start(space, head).await;
        let before = heads::fingerprint(space, "small").await;
        let both = async |names: [&str; 2], code: &str| {
            let run = |name: &str| runs::run(space, runs::workflow(name, Document::python(code)));
            tokio::join!(run(names[0]), run(names[1]))
        };
        let within = "\
import time
block = bytearray(300 << 20)
for part in range(6):
    open(str(part), 'wb').write(bytes(64 << 20))
time.sleep(2)";
        let done = both(["one", "other"], within).await;
        runs::assert_succeeded(space, &done.0).await;
        runs::assert_succeeded(space, &done.1).await;
        let programs = "\
import subprocess, sys, time
code = 'block = bytearray(40 << 20); import time; time.sleep(600)'
programs = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(30)]
time.sleep(600)";
        let done = both(["greedy", "greedier"], programs).await;
        runs::assert_failed(space, &done.0, reasons::OUT_OF_MEMORY).await;
        runs::assert_failed(space, &done.1, reasons::OUT_OF_MEMORY).await;
        assert_eq!(heads::fingerprint(space, "small").await, before);
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_output_ends_its_run_and_nothing_else() {
    contained("flood", async |space| {
        let code = "import os\nwhile True:\n    os.write(1, b'x' * (1 << 20))";
        let done = runs::run(space, runs::workflow("flood", Document::python(code))).await;
        runs::assert_failed(space, &done, reasons::OUTPUT_LIMIT_EXCEEDED).await;
    })
    .await;
}
