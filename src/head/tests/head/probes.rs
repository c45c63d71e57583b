//! Hostile documents: each is refused or contained, and the head goes on as if nothing had been.

use crate::testbed::{PATIENCE, Ran, Testbed, document};
use head_proto::run_event::Event;
use sandbox::reason;
use sandbox::stream::KEPT_OUTPUT;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Gives each attempt's error by name, or None where it was allowed.
const TRY: &str = "\
result = {}
def attempt(name, action):
    try:
        action()
        result[name] = None
    except BaseException as error:
        result[name] = type(error).__name__
";

async fn probe(head: &Testbed, code: &str, inputs: serde_json::Value) -> Ran {
    let ran = head.run(&format!("{TRY}{code}"), &inputs.to_string()).await;
    assert!(ran.attestation.error.is_none(), "{:?}", ran.attestation.error);
    ran
}

fn assert_all_refused(ran: &Ran) {
    for (name, error) in ran.outputs["result"].as_object().unwrap() {
        assert_eq!(error, "PermissionError", "{name}");
    }
}

/// A head is clean when it runs the next document, holds nothing of the last and is ready.
async fn assert_clean(head: &Testbed) {
    assert_eq!(
        head.run("result = 'fine'", "{}").await.outputs,
        json!({"result": "fine"})
    );
    assert_eq!(head.left_in_folders(), None);
    assert!(head.agent.status().ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_outside_of_the_runs_folder_cannot_be_read_or_written() {
    let head = Testbed::start().await;
    let secret = head.outside().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let code = "\
import os
for name in ('tls.key', 'tls.crt', 'ca.crt', 'root.pem'):
    attempt('read ' + name, lambda: open(inputs['identity'] + '/' + name).read())
agent = str(inputs['agent'])
for path in ('mem', 'environ', 'maps', 'fd', 'root', 'cwd'):
    attempt('read /proc/agent/' + path, lambda: os.listdir('/proc/' + agent + '/' + path) if path in ('fd', 'root', 'cwd') else open('/proc/' + agent + '/' + path, 'rb').read(1))
for path in ('/proc/self/environ', '/proc/self/mem', '/proc/1/environ', '/etc/passwd', '/etc/hostname', inputs['secret']):
    attempt('read ' + path, lambda: open(path, 'rb').read(1))
for path in ('/', '/tmp', '/proc', '/etc', '/dev', '/dev/shm', '..', '../..', inputs['runs'], inputs['identity']):
    if path != '..':
        attempt('list ' + path, lambda: os.listdir(path))
mine = 'chimera-probe-' + agent
for path in ('/tmp/' + mine, '/dev/shm/' + mine, '/var/tmp/' + mine, '../../probe', inputs['runs'] + '/probe', inputs['secret']):
    attempt('write ' + path, lambda: open(path, 'w'))
    attempt('make ' + path, lambda: os.mkdir(path + 'd'))
attempt('remove', lambda: os.unlink(inputs['secret']))
attempt('move', lambda: os.rename(inputs['secret'], 'mine'))
attempt('hard link', lambda: os.link(inputs['secret'], 'mine'))
# Landlock's answer for links between hierarchies with different rights is \"another device\".
assert result.pop('hard link') == 'OSError' and not os.path.lexists('mine')
os.symlink(inputs['secret'], 'link')
attempt('through a link', lambda: open('link').read())
attempt('chmod', lambda: os.chmod(inputs['runs'], 0))
attempt('truncate', lambda: os.truncate(inputs['secret'], 0))
attempt('device', lambda: os.mknod('device', 0o020666, os.makedev(1, 5)))
import subprocess
attempt('chmod by a program', lambda: subprocess.run(['chmod', '0', inputs['runs']], check=True))
result['chmod by a program'] = 'PermissionError' if result['chmod by a program'] == 'CalledProcessError' else 'allowed'
with open('own', 'w') as file:
    file.write('x')
os.chmod('own', 0o600)
assert open('own').read() == 'x'
";
    let inputs = json!({
        "identity": head.identity, "agent": std::process::id(), "secret": secret, "runs": head.runs,
    });
    assert_all_refused(&probe(&head, code, inputs).await);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_socket_of_any_family_can_be_opened() {
    let head = Testbed::start().await;
    let code = "\
import socket
for family in range(0, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        attempt(f'socket {family} {kind}', lambda: socket.socket(family, kind))
attempt('connect', lambda: socket.create_connection(('127.0.0.1', inputs['port']), 1))
a, b = socket.socketpair()
a.send(b'x')
assert b.recv(1) == b'x'
";
    assert_all_refused(&probe(&head, code, json!({"port": head.address.port()})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_break_out_are_refused() {
    let head = Testbed::start().await;
    let code = "\
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), '')
calls = inputs['calls'].items()
for name, (number, *arguments) in calls:
    attempt(name, lambda: call(number, *arguments))
attempt('setsid', os.setsid)
attempt('setpgid', lambda: os.setpgid(0, 0))
attempt('new session', lambda: __import__('subprocess').run(['true'], start_new_session=True))
attempt('nice on the agent', lambda: os.setpriority(os.PRIO_PROCESS, inputs['agent'], 19))
attempt('affinity of the agent', lambda: os.sched_setaffinity(inputs['agent'], {0}))
attempt('limits of the agent', lambda: __import__('resource').prlimit(inputs['agent'], 7, (1, 1)))
";
    let calls = json!({
        "ptrace": [libc::SYS_ptrace, 16, std::process::id()],
        "process_vm_readv": [libc::SYS_process_vm_readv, std::process::id(), 0, 0, 0, 0, 0],
        "pidfd_getfd": [libc::SYS_pidfd_getfd, 3, 0, 0],
        "io_uring_setup": [libc::SYS_io_uring_setup, 8, 0],
        "userfaultfd": [libc::SYS_userfaultfd, 0],
        "bpf": [libc::SYS_bpf, 0, 0, 0],
        "perf_event_open": [libc::SYS_perf_event_open, 0, 0, 0, 0, 0],
        "keyctl": [libc::SYS_keyctl, 0, 0, 0, 0, 0],
        "mount": [libc::SYS_mount, 0, 0, 0, 0, 0],
        "unshare": [libc::SYS_unshare, libc::CLONE_NEWUSER],
        "setns": [libc::SYS_setns, 3, 0],
        "shmget": [libc::SYS_shmget, 0, 4096, 0o1666],
        "msgget": [libc::SYS_msgget, 0, 0o1666],
        "semget": [libc::SYS_semget, 0, 1, 0o1666],
        "memfd_create": [libc::SYS_memfd_create, 0, 0],
        "inotify": [libc::SYS_inotify_init1, 0],
        "kexec": [libc::SYS_kexec_load, 0, 0, 0, 0],
    });
    let inputs = json!({"calls": calls, "agent": std::process::id()});
    let ran = probe(&head, code, inputs).await;
    let mut names = ran.outputs["result"].as_object().unwrap().clone();
    // subprocess reports the child's failure in its own way.
    assert!(names.remove("new session").unwrap().is_string());
    for (name, error) in names {
        assert_eq!(error, "PermissionError", "{name}");
    }
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_sees_neither_files_nor_processes_of_another() {
    let head = Testbed::start().await;
    let text = document(
        "import os, time\nopen('secret', 'w').write('x')\nprint(os.getpid(), os.getcwd(), flush=True)\n\
         while not os.path.exists('go'): time.sleep(0.02)\nresult = os.listdir('.')",
    );
    let grant = head.grant(&text, "{}");
    let mut stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    let printed = loop {
        if let Some(Event::Output(output)) = stream.message().await.unwrap().unwrap().event {
            break String::from_utf8(output.data).unwrap();
        }
    };
    let (pid, folder) = printed.trim().split_once(' ').unwrap();
    let code = "\
import os
attempt('read', lambda: open(inputs['folder'] + '/secret').read())
attempt('list', lambda: os.listdir(inputs['folder']))
attempt('write', lambda: open(inputs['folder'] + '/go', 'w'))
attempt('kill', lambda: os.kill(inputs['pid'], 9))
attempt('kill the agent', lambda: os.kill(inputs['agent'], 9))
attempt('kill the zygote', lambda: os.kill(os.getppid(), 9))
attempt('environment', lambda: open(f\"/proc/{inputs['pid']}/environ\").read())
attempt('descriptors', lambda: os.readlink(f\"/proc/{inputs['pid']}/cwd\"))
attempt('chmod', lambda: os.chmod(inputs['folder'], 0))
";
    let inputs = json!({"folder": folder, "pid": pid.parse::<i32>().unwrap(), "agent": std::process::id()});
    let ran = probe(&head, code, inputs).await;
    assert_all_refused(&ran);
    std::fs::write(Path::new(folder).join("go"), "").unwrap();
    let resume = head_proto::ResumeRequest { run_id: grant.run_id };
    let resumed = head.client.clone().resume(resume).await.unwrap().into_inner();
    let other = head.finish(resumed).await;
    assert_eq!(other.outputs["result"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_run_leaves_behind_the_next_does_not_find() {
    let head = Testbed::start().await;
    let first = "import builtins, json, os, random\nbuiltins.left = json.left = 1\nos.environ['LEFT'] = '1'\n\
                 for name in ('HOME', 'TMPDIR'): open(os.environ[name] + '/left', 'w')\nresult = random.random()";
    let second = "import builtins, json, os, random\n\
                  assert not hasattr(builtins, 'left') and not hasattr(json, 'left') and 'LEFT' not in os.environ\n\
                  assert not os.listdir(os.environ['HOME']) and not os.listdir(os.environ['TMPDIR'])\n\
                  result = random.random()";
    let one = head.run(first, "{}").await;
    let two = head.run(second, "{}").await;
    assert!(two.attestation.error.is_none(), "{:?}", two.attestation.error);
    assert_ne!(one.outputs, two.outputs, "both drew the same number");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_draw_nothing_alike() {
    let head = Testbed::start().await;
    let code = "\
import ctypes, os, random, secrets, sys, tempfile, uuid
libc = ctypes.CDLL(None)
result = {'random': random.random(), 'system': random.SystemRandom().random(), 'secret': secrets.token_hex(), 'urandom': os.urandom(8).hex(),
          'uuid4': str(uuid.uuid4()), 'uuid1': uuid.uuid1().clock_seq << 48 | uuid.uuid1().time, 'name': tempfile.mktemp(dir=''),
          'C': [libc.rand() for _ in range(4)]}
if 'numpy' in sys.modules:
    import numpy
    result |= {'numpy': numpy.random.rand(), 'generator': numpy.random.default_rng().random()}
if 'torch' in sys.modules:
    import torch
    result |= {'torch': torch.rand(1).item()}
";
    let (one, two) = (head.run(code, "{}").await, head.run(code, "{}").await);
    for (name, drawn) in one.outputs["result"].as_object().unwrap() {
        assert_ne!(drawn, &two.outputs["result"][name], "both drew the same {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_its_run() {
    let head = Testbed::start().await;
    let code = "\
import os, signal, time
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        for number in range(1, 32):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.write(write, str(os.getpid()).encode())
        while True: time.sleep(60)
    os._exit(0)
os.wait()
result = int(os.read(read, 20))
";
    let ran = head.run(code, "{}").await;
    let pid = ran.outputs["result"].as_i64().unwrap();
    assert!(
        !PathBuf::from(format!("/proc/{pid}")).exists(),
        "process {pid} lives on"
    );
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_run_times_out_and_its_head_stays_ready() {
    let head = Testbed::start().await;
    let began = Instant::now();
    let ran = head
        .run_for(
            1,
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
            "{}",
        )
        .await;
    assert_eq!(ran.error().reason, reason::TIMED_OUT);
    assert!(began.elapsed() < PATIENCE / 4);
    assert_eq!(
        ran.attestation.blocks[0].state,
        crypto::attestation::BlockState::Failed
    );
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_cut_and_a_larger_one_ends_the_run() {
    let head = Testbed::start().await;
    let ran = head
        .run(
            "import os\nfor _ in range(64): os.write(1, b'x' * (1 << 20))\nresult = 1",
            "{}",
        )
        .await;
    assert_eq!(ran.outputs, json!({"result": 1}));
    assert_eq!(ran.attestation.stdout.bytes, 64 << 20);
    assert!(ran.attestation.stdout.truncated);
    assert_eq!(ran.printed().len(), KEPT_OUTPUT);
    let ran = head
        .run("import os\nwhile True: os.write(2, b'x' * (1 << 20))", "{}")
        .await;
    assert_eq!(ran.error().reason, reason::OUTPUT_LIMIT_EXCEEDED);
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_hog_is_told_that_there_is_no_more() {
    let head = Testbed::start_with(&["--run-memory-mib", "256"]).await;
    for code in [
        "x = []\nwhile True: x.append(bytearray(16 << 20))",
        "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(100 << 20)\nwhile True: time.sleep(1)",
        "import mmap\nx = []\ntry:\n    while True: x.append(mmap.mmap(-1, 256 << 20))\nexcept OSError: raise MemoryError",
    ] {
        let ran = head.run(code, "{}").await;
        assert_eq!(ran.error().reason, reason::OUT_OF_MEMORY, "{:?}", ran.error());
    }
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_folder_ends_the_run_before_it_fills_the_disk() {
    let head = Testbed::start_with(&["--run-disk-mib", "32"]).await;
    let cases = [
        "import time\nfor n in range(5): open(str(n), 'wb').write(b'x' * (16 << 20))\nwhile True: time.sleep(1)",
        "import os, time\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nwhile True: time.sleep(1)",
    ];
    for code in cases {
        let ran = head.run(code, "{}").await;
        assert_eq!(
            ran.error().reason,
            reason::DISK_LIMIT_EXCEEDED,
            "{:?}",
            ran.error()
        );
        assert_clean(&head).await;
    }
    let ran = head
        .run(
            "file = open('a', 'wb')\nfile.seek(33 << 20)\nfile.write(b'x')\nfile.flush()",
            "{}",
        )
        .await;
    assert!(
        ran.error().message.contains("File too large"),
        "{:?}",
        ran.error()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_forks_is_ended_with_every_process_in_it() {
    let head = Testbed::start_with(&["--run-processes", "100"]).await;
    let code = "\
import os, time
print(os.getpid(), flush=True)
for _ in range(400):
    try:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    except OSError:
        break
while True: time.sleep(1)
";
    let ran = head.run(code, "{}").await;
    assert_eq!(
        ran.error().reason,
        reason::PROCESS_LIMIT_EXCEEDED,
        "{:?}",
        ran.error()
    );
    let group: i64 = ran.printed().trim().parse().unwrap();
    let left = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let fields: Vec<_> = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        (fields.get(2)?.parse::<i64>().ok()? == group).then_some(())
    });
    assert_eq!(left.count(), 0);
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_on_the_control_socket_harms_only_its_run() {
    let head = Testbed::start().await;
    let cases = [
        (
            "import os\nos.write(3, b'J' + b'\\xff' * 4)",
            reason::INVALID_OUTPUT,
        ),
        (
            "import os\nos.write(3, b'J\\0\\0\\0\\x02no')\nwhile True: pass",
            reason::INTERPRETER_EXITED,
        ),
        ("import os\nos.close(3)\nresult = 1", reason::INTERPRETER_EXITED),
        ("import os\nos._exit(0)", reason::INTERPRETER_EXITED),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
            reason::KILLED,
        ),
        ("import sys\nsys.exit(4)", reason::BLOCK_FAILED),
        ("result = 'x' * (9 << 20)", reason::INVALID_OUTPUT),
        (
            "x = []\nfor _ in range(100000): x = [x]\nresult = x",
            reason::INVALID_OUTPUT,
        ),
        ("result = object()", reason::INVALID_OUTPUT),
    ];
    for (code, expected) in cases {
        let ran = head.run(code, "{}").await;
        assert_eq!(ran.error().reason, expected, "{code}: {:?}", ran.error());
    }
    let early = "import os, struct\nbody = b'{\"result\":\"forged\"}'\n\
                 os.write(3, b'O' + struct.pack('!I', len(body)) + body)\nresult = 'true'";
    assert_eq!(head.run(early, "{}").await.outputs, json!({"result": "true"}));
    assert_clean(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an interpreter with numpy, qiskit and qiskit-aer in CHIMERA_PYTHON"]
async fn what_scientific_libraries_need_is_allowed() {
    let head = Testbed::start_with(&["--preload", "numpy,qiskit,qiskit_aer"]).await;
    let code = "\
import concurrent.futures, shutil, subprocess, sys, tempfile, threading
import numpy
from qiskit import QuantumCircuit, transpile
from qiskit_aer import AerSimulator
bell = QuantumCircuit(2)
bell.h(0); bell.cx(0, 1); bell.measure_all()
simulator = AerSimulator()
counts = simulator.run(transpile(bell, simulator), shots=1000).result().get_counts()
matrix = numpy.random.rand(300, 300)
error = float(abs(numpy.linalg.inv(matrix) @ matrix - numpy.eye(300)).max())
with concurrent.futures.ThreadPoolExecutor(4) as pool: threads = sum(pool.map(abs, range(10)))
python = subprocess.run([sys.executable, '-c', 'import numpy; print(numpy.arange(4).sum())'], capture_output=True, text=True, check=True)
with tempfile.TemporaryDirectory() as folder:
    numpy.save(folder + '/a.npy', matrix)
    shutil.copy(folder + '/a.npy', 'copy.npy')
result = {'counts': counts, 'error': error < 1e-3, 'threads': threads, 'python': python.stdout.strip(), 'sum': numpy.int64(3), 'vector': numpy.arange(3)}
";
    let ran = head.run(code, "{}").await;
    assert!(ran.attestation.error.is_none(), "{:?}", ran.attestation.error);
    let result = &ran.outputs["result"];
    let counts = result["counts"].as_object().unwrap();
    assert!(counts.keys().all(|key| key == "00" || key == "11"), "{counts:?}");
    assert_eq!(result["error"], true);
    assert_eq!(result["python"], "6");
    assert_eq!(result["vector"], json!([0, 1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_small_for_a_run_takes_none_and_says_what_would_help() {
    for (argument, sentence) in [
        (
            "--run-memory-mib=8",
            "raise spec.resources.limits.memory or lower",
        ),
        (
            "--run-disk-mib=0",
            "raise spec.resources.limits.ephemeral-storage or lower",
        ),
    ] {
        let head = Testbed::start_unready(&[argument]).await;
        let status = head
            .wait_until(|status| status.message.contains("each run"))
            .await;
        assert!(
            !status.ready && status.message.contains(sentence),
            "{}",
            status.message
        );
    }
}
