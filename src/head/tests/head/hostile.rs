//! The hostile documents of `tests/hostile`, one after another on one head: each ends as its first line says, and after each
//! the head is as it was before: the next run clean, no process more, the agent's memory and the zygote's flat.

use crate::binary::{self, Program};
use crate::testbed::{Ran, Testbed};
use libc::c_long;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// What the suite may add to the agent's memory: what it keeps of finished runs (`--keep-mib`), and the allocator's slack.
const AGENT_GROWTH: u64 = 40 << 20;
/// Children are forked from the zygote and nothing more.
const ZYGOTE_GROWTH: u64 = 2 << 20;
/// A refusal is one of these; anything else, and success above all, is none.
const REFUSALS: [&str; 12] = [
    "EPERM", "EACCES", "ENOSYS", "EXDEV", "EROFS", "ENOENT", "EINVAL", "ENXIO", "ENODEV", "ENOTDIR", "ELOOP",
    "EBUSY",
];

/// A document, and how it must end.
struct Hostile {
    name: String,
    ends: String,
    code: String,
}

fn documents() -> Vec<Hostile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let prelude = read(&folder.join("prelude.py"));
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("prelude.py"))
        .collect();
    paths.sort();
    let mut documents = Vec::new();
    for path in paths {
        let text = read(&path);
        for (part, code) in text.split("#---\n").enumerate() {
            let ends = code.lines().next().unwrap().trim_start_matches("# ").to_owned();
            documents.push(Hostile {
                name: format!("{} {}", path.file_stem().unwrap().display(), part + 1),
                ends,
                code: format!("{prelude}{code}"),
            });
        }
    }
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_leave_the_head_as_it_was() {
    let mut head = Testbed::start().await;
    let limits = [
        "--run-memory-mib=160",
        "--run-disk-mib=64",
        "--run-processes=100",
        "--keep-mib=4",
        // A folder of its own would be taken for what a document left behind.
        "--canary-seconds=3600",
    ];
    let mut program = binary::start(&mut head, &limits).await;
    let journal = read_journal(&mut program);
    let agent = program.child.id();
    let zygote = head.run("import os\nresult = os.getppid()", "{}").await.outputs["result"].clone();
    let zygote = u32::try_from(zygote.as_u64().unwrap()).unwrap();
    let secret = head.outside().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let datagrams = head.outside().join("datagrams");
    let listener = UnixDatagram::bind(&datagrams).unwrap();
    listener.set_nonblocking(true).unwrap();
    let inputs = inputs(&head, agent, &secret, &datagrams).to_string();

    let documents = documents();
    assert!(documents.len() >= 60, "{}", documents.len());
    let processes = descendants(agent);
    let (mut agent_before, zygote_before) = (None, memory(zygote));
    let mut complaints = Vec::new();
    for hostile in &documents {
        let seconds = if hostile.ends.contains("TimedOut") { 2 } else { 40 };
        let ran = head.run_for(seconds, &hostile.code, &inputs).await;
        complaints.extend(wrong_end(hostile, &ran).map(|what| format!("{}: {what}", hostile.name)));
        complaints.extend(
            left_behind(&head)
                .await
                .map(|what| format!("after {}: {what}", hostile.name)),
        );
        assert_eq!(descendants(agent), processes, "after {}", hostile.name);
        // The first run has warmed the agent up.
        agent_before.get_or_insert_with(|| memory(agent));
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    let heard = listener.recv(&mut [0]).unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::WouldBlock, "nothing was sent to it");
    let grown = |pid, before: u64| memory(pid).saturating_sub(before);
    let (agent, zygote) = (grown(agent, agent_before.unwrap()), grown(zygote, zygote_before));
    println!(
        "{} documents; the agent's memory grew by {} KiB, the zygote's by {} KiB",
        documents.len(),
        agent >> 10,
        zygote >> 10
    );
    assert!(agent < AGENT_GROWTH, "the agent's memory grew by {agent} bytes");
    assert!(
        zygote < ZYGOTE_GROWTH,
        "the zygote's memory grew by {zygote} bytes"
    );
    drop(program);
    let control = |text: &str| text.chars().any(|one| one.is_control() && one != '\n');
    assert!(
        !control(&journal.join().unwrap()),
        "control characters in the journal"
    );
}

/// What is wrong with how a document ended.
fn wrong_end(hostile: &Hostile, ran: &Ran) -> Option<String> {
    let error = ran.attestation.error.as_ref();
    let reason = error.map_or("", |error| error.reason.as_str());
    let expected = hostile.ends.strip_prefix("ends: ").unwrap_or_default();
    if !expected.split(", ").any(|one| one == reason) {
        return Some(format!("{error:?}"));
    }
    if hostile.ends == "refused" {
        let result = ran.outputs["result"].as_object().unwrap();
        let allowed: Vec<_> = result
            .iter()
            .filter(|(_, error)| !error.as_str().is_some_and(|error| REFUSALS.contains(&error)))
            .collect();
        if result.is_empty() || !allowed.is_empty() {
            return Some(format!("not refused: {allowed:?}"));
        }
    }
    let texts = error.into_iter().map(|error| &error.message);
    let mut texts = texts.chain(ran.attestation.blocks.iter().map(|block| &block.diagnostics));
    let harmless = |one: char| !one.is_control() || one == '\n' || one == '\t';
    texts
        .find(|text| !text.chars().all(harmless))
        .map(|text| format!("control characters: {text:?}"))
}

/// What the next document finds that should not be there.
async fn left_behind(head: &Testbed) -> Option<String> {
    let code = "\
import os
left = [name for name in ('work', 'home', 'tmp') if os.listdir('../' + name)]
result = [left, len(os.listdir('..')), 'LEFT' in os.environ, os.getpriority(os.PRIO_PROCESS, 0)]";
    let ran = head.run(code, "{}").await;
    if ran.outputs != json!({"result": [[], 3, false, 10]}) {
        return Some(format!("{:?} {:?}", ran.attestation.error, ran.outputs));
    }
    head.left_in_folders().map(|left| format!("{}", left.display()))
}

fn inputs(head: &Testbed, agent: u32, secret: &Path, datagrams: &Path) -> Value {
    json!({
        "datagrams": datagrams, "agent": agent, "identity": head.identity, "runs": head.runs, "secret": secret, "port": head.address.port(),
        "program": env!("CARGO_BIN_EXE_chimera-head"), "calls": calls(),
    })
}

/// Numbers of system calls by name.
fn calls() -> Value {
    macro_rules! numbers {
        ($($name:literal = $number:ident),* $(,)?) => { &[$(($name, libc::$number)),*] };
    }
    let calls: &[(&str, c_long)] = numbers![
        "ptrace" = SYS_ptrace,
        "process_vm_readv" = SYS_process_vm_readv,
        "process_vm_writev" = SYS_process_vm_writev,
        "kcmp" = SYS_kcmp,
        "pidfd_getfd" = SYS_pidfd_getfd,
        "process_madvise" = SYS_process_madvise,
        "process_mrelease" = SYS_process_mrelease,
        "io_uring_setup" = SYS_io_uring_setup,
        "io_uring_enter" = SYS_io_uring_enter,
        "io_uring_register" = SYS_io_uring_register,
        "userfaultfd" = SYS_userfaultfd,
        "bpf" = SYS_bpf,
        "perf_event_open" = SYS_perf_event_open,
        "keyctl" = SYS_keyctl,
        "add_key" = SYS_add_key,
        "request_key" = SYS_request_key,
        "mount" = SYS_mount,
        "umount2" = SYS_umount2,
        "pivot_root" = SYS_pivot_root,
        "chroot" = SYS_chroot,
        "open_tree" = SYS_open_tree,
        "move_mount" = SYS_move_mount,
        "fsopen" = SYS_fsopen,
        "mount_setattr" = SYS_mount_setattr,
        "kexec_load" = SYS_kexec_load,
        "init_module" = SYS_init_module,
        "finit_module" = SYS_finit_module,
        "delete_module" = SYS_delete_module,
        "reboot" = SYS_reboot,
        "swapon" = SYS_swapon,
        "sethostname" = SYS_sethostname,
        "settimeofday" = SYS_settimeofday,
        "clock_settime" = SYS_clock_settime,
        "syslog" = SYS_syslog,
        "acct" = SYS_acct,
        "quotactl" = SYS_quotactl,
        "personality" = SYS_personality,
        "seccomp" = SYS_seccomp,
        "landlock_create_ruleset" = SYS_landlock_create_ruleset,
        "memfd_create" = SYS_memfd_create,
        "memfd_secret" = SYS_memfd_secret,
        "name_to_handle_at" = SYS_name_to_handle_at,
        "open_by_handle_at" = SYS_open_by_handle_at,
        "move_pages" = SYS_move_pages,
        "migrate_pages" = SYS_migrate_pages,
        "clone" = SYS_clone,
        "clone3" = SYS_clone3,
        "unshare" = SYS_unshare,
        "setns" = SYS_setns,
        "setuid" = SYS_setuid,
        "setgid" = SYS_setgid,
        "setreuid" = SYS_setreuid,
        "setregid" = SYS_setregid,
        "setresuid" = SYS_setresuid,
        "setresgid" = SYS_setresgid,
        "setfsuid" = SYS_setfsuid,
        "setfsgid" = SYS_setfsgid,
        "setgroups" = SYS_setgroups,
        "capset" = SYS_capset,
        "tgkill" = SYS_tgkill,
        "tkill" = SYS_tkill,
        "rt_sigqueueinfo" = SYS_rt_sigqueueinfo,
        "shmget" = SYS_shmget,
        "shmat" = SYS_shmat,
        "msgget" = SYS_msgget,
        "semget" = SYS_semget,
        "mq_open" = SYS_mq_open,
        "ioprio_set" = SYS_ioprio_set,
        "inotify_init1" = SYS_inotify_init1,
        "fanotify_init" = SYS_fanotify_init,
        "utimensat" = SYS_utimensat,
        "fchmodat" = SYS_fchmodat,
        "sendmmsg" = SYS_sendmmsg,
        "splice" = SYS_splice,
        "tee" = SYS_tee,
        "vmsplice" = SYS_vmsplice,
    ];
    let mut numbers: serde_json::Map<_, _> = calls
        .iter()
        .map(|(name, number)| ((*name).to_owned(), json!(number)))
        .collect();
    #[cfg(target_arch = "x86_64")]
    for (name, number) in [
        ("iopl", libc::SYS_iopl),
        ("ioperm", libc::SYS_ioperm),
        ("modify_ldt", libc::SYS_modify_ldt),
        ("uselib", libc::SYS_uselib),
    ] {
        numbers.insert(name.into(), json!(number));
    }
    Value::Object(numbers)
}

/// Everything that the program writes on its standard output, once it has ended.
fn read_journal(program: &mut Program) -> std::thread::JoinHandle<String> {
    let mut stdout = program.child.stdout.take().unwrap();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    })
}

/// Resident memory that is the process's own, in bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The processes that come from `pid`.
fn descendants(pid: u32) -> BTreeSet<u32> {
    let children = |pid: u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        texts
            .flat_map(|text| {
                text.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<u32>>()
            })
            .collect::<Vec<_>>()
    };
    let (mut found, mut next) = (BTreeSet::new(), children(pid));
    while let Some(child) = next.pop() {
        if found.insert(child) {
            next.extend(children(child));
        }
    }
    found
}
