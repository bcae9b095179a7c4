//! Several processes on three hosts, which are network namespaces of this machine. Wants mpirun, ip and the rights of root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Called;
use super::text::{folder, in_folder};

/// Three hosts and a network between them, which go when this is dropped.
struct Hosts {
    /// Of this process, so that two tests do not meet.
    tag: String,
}

const HOSTS: usize = 3;

/// Seconds after which a job is ended, so that one that hangs is a test that fails.
const LIMIT: &str = "240";

fn sh(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().expect("a shell");
    assert!(status.success(), "`{command}` failed: this test wants ip (iproute2) and the rights of root");
}

impl Hosts {
    fn up(number: u32) -> Self {
        let tag = format!("l{}x{number}", std::process::id() % 10_000);
        let hosts = Self { tag };
        let (tag, net) = (&hosts.tag, hosts.network());
        sh(&format!("ip link add {tag} type bridge; ip addr add {net}.254/24 dev {tag}; ip link set {tag} up"));
        for host in 1..=HOSTS {
            sh(&format!(
                "ip netns add {tag}h{host}
                 ip link add {tag}v{host} type veth peer name eth0 netns {tag}h{host}
                 ip link set {tag}v{host} master {tag} up
                 ip -n {tag}h{host} addr add {net}.{host}/24 dev eth0
                 ip -n {tag}h{host} link set eth0 up
                 ip -n {tag}h{host} link set lo up"
            ));
        }
        hosts
    }

    /// The first three numbers of its addresses.
    fn network(&self) -> String {
        let number: u32 = self.tag.bytes().map(u32::from).sum();
        format!("10.{}.{}", 64 + std::process::id() % 64, number % 250)
    }

    fn name(&self, host: usize) -> String {
        format!("{}h{host}", self.tag)
    }

    /// The program on all hosts, one process on each.
    fn mpirun(&self, folder: &Path, arguments: &[&str]) -> Command {
        // OpenMPI's daemons keep their state in folders that are named by the host's name, which is one for all of these:
        // where they had the folder in common, one that ended took the others' state along, and mpirun waited for ever.
        let agent = folder.join("agent");
        let script = "#!/bin/sh\nhost=$1; shift; export TMPDIR=\"${0%/*}/$host\"; mkdir -p \"$TMPDIR\"
                      exec ip netns exec \"$host\" sh -c \"$*\"\n";
        fs::write(&agent, script).expect("written");
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("made a program");
        let hosts: Vec<String> = (1..=HOSTS).map(|host| self.name(host)).collect();
        let network = format!("{}.0/24", self.network());
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after=5",
            LIMIT,
            "mpirun",
            "--allow-run-as-root",
            "-np",
            "3",
            "--host",
            &hosts.join(","),
        ]);
        for (name, value) in [
            ("plm_rsh_agent", agent.to_str().expect("UTF-8")),
            ("plm_rsh_no_tree_spawn", "1"),
            ("btl", "tcp,self"),
            ("btl_tcp_if_include", network.as_str()),
            ("oob_tcp_if_include", network.as_str()),
            ("mpi_yield_when_idle", "1"),
        ] {
            command.args(["--mca", name, value]);
        }
        let data = format!("LAPIDARY_DATA={}", folder.display());
        command.args(["-x", &data, "-wdir", folder.to_str().expect("UTF-8")]);
        command.arg(env!("CARGO_BIN_EXE_lapidary")).args(["--threads", "1"]).args(arguments);
        command.current_dir(folder);
        command
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> Called {
        Called::of(self.mpirun(folder, arguments).output().expect("mpirun starts"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 1..=HOSTS {
            let _ = Command::new("ip").args(["netns", "del", &self.name(host)]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.tag]).status();
    }
}

/// What the recipe of `text.rs` is changed to: a step in three parts, K-FAC with its work shared out.
const CHANGES: [&str; 2] = [
    "pretrain.batch_size=12",
    "pretrain.optimizer={ kind = \"kfac\", strict = false, factors = { every = 2 }, inverses = { every = 4 }, gradient_workers = 0.4 }",
];

/// Arguments of a run into a folder, with more changes.
fn arguments<'a>(out: &'a str, changes: &[&'a str]) -> Vec<&'a str> {
    let changes = CHANGES.iter().chain(changes).flat_map(|change| ["--set", change]);
    ["run", "small.toml", "--out", out].into_iter().chain(changes).collect()
}

/// Losses of all steps of a model.
fn losses(run: &Path, model: &str) -> Vec<f64> {
    let log = fs::read_to_string(run.join("pretrain").join(model).join("training/metrics.jsonl")).expect("a log");
    let rows = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|row| row["loss"].as_f64().expect("a loss")).collect()
}

#[test]
fn three_hosts_have_the_losses_of_one_process() {
    let (hosts, folder) = (Hosts::up(1), folder());
    let three = hosts.run(folder.path(), &arguments("three", &[]));
    assert_eq!(three.code, Some(0), "{}", three.stderr);
    assert_eq!(three.stdout.matches("three/report.html").count(), 1, "one of them tells the result: {}", three.stdout);
    let one = in_folder(folder.path(), &arguments("one", &["pretrain.accumulate=3"]));
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    for (model, steps) in [("both", 12), ("twin", 10)] {
        let [three, one] = ["three", "one"].map(|run| losses(&folder.path().join(run), model));
        assert_eq!(three.len(), steps);
        for (three, one) in three.iter().zip(&one) {
            assert!((three - one).abs() < 1e-5, "{model}: {three} for {one}");
        }
    }
}

#[test]
fn a_rank_that_dies_ends_the_run_and_the_run_goes_on() {
    let (hosts, folder) = (Hosts::up(2), folder());
    let arguments = arguments("three", &["pretrain.variant.twin.steps=1500"]);
    let errors = fs::File::create(folder.path().join("errors")).expect("a file");
    let mut started =
        hosts.mpirun(folder.path(), &arguments).stdout(Stdio::null()).stderr(errors).spawn().expect("mpirun starts");
    // Some states are there before one of them dies.
    let training = folder.path().join("three/pretrain/twin/training");
    let states = || {
        let entries = fs::read_dir(&training).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("state-")).count()
    };
    let begun = Instant::now();
    while states() == 0 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pids = Command::new("ip").args(["netns", "pids", &hosts.name(2)]).output().expect("ip").stdout;
    let pids = String::from_utf8(pids).expect("UTF-8");
    let name = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "lapidary");
    let pid = pids.split_whitespace().find(name).expect("a rank on the second host");
    sh(&format!("kill -9 {pid}"));
    let begun = Instant::now();
    let code = started.wait().expect("known").code();
    assert!(code != Some(0) && begun.elapsed() < Duration::from_secs(20), "{code:?} after {:?}", begun.elapsed());
    let errors = fs::read_to_string(folder.path().join("errors")).expect("read");
    assert!(errors.contains("exited on signal 9") || errors.contains("rank"), "{errors}");
    let again = hosts.run(folder.path(), &arguments);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("goes on where it was stopped"), "{}", again.stderr);
    assert_eq!(losses(&folder.path().join("three"), "twin").len(), 1500);
}

#[test]
fn what_ranks_cannot_share_is_told() {
    let (hosts, folder) = (Hosts::up(3), folder());
    let odd = hosts.run(folder.path(), &arguments("odd", &["pretrain.batch_size=16"]));
    assert_ne!(odd.code, Some(0));
    assert!(odd.stderr.contains("a batch should be a multiple of its parts"), "{}", odd.stderr);
    let other = hosts.run(folder.path(), &["inspect", "model"]);
    assert!(other.stderr.contains("work for one process, and 3 were started"), "{}", other.stderr);
}
