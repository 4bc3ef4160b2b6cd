//! The network as the user meets it: bad arguments, ports that are taken, and what others can find out of a running guest.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::guest::{greeter, sleeper};
use crate::support::{Dir, LIMIT, Running, bare, hartvm, refused, run};

#[test]
fn bad_networks_are_usage_errors() {
    for (value, words) in [
        ("tap", &["`tap`", "user[,OPTION...] or none"][..]),
        ("", &["user[,OPTION...] or none"]),
        ("none,restrict=on", &["`none`", "restrict=on"]),
        ("user,smb=/tmp", &["smb=/tmp", "hostfwd", "restrict", "ipv6", "mac"]),
        ("user,restrict=perhaps", &["`perhaps`", "on or off"]),
        ("user,hostfwd=tcp::22", &["tcp::22", "hostfwd=tcp::2222-:22"]),
        ("user,hostfwd=sctp::1-:2", &["neither tcp nor udp"]),
        ("user,hostfwd=tcp::5-:5,hostfwd=tcp::5-:6", &["two forwards", "0.0.0.0:5"]),
        ("user,mac=1", &["`1`", "52:54:00:12:34:56"]),
    ] {
        let words: Vec<&str> = words.iter().copied().chain(["--net"]).collect();
        refused(&["run", "--kernel", "/dev/null", "--net", value], 2, &words);
    }
    refused(&["run", "--kernel", "/dev/null", "--name", "22"], 2, &["--name", "not only digits"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = Dir::new();
    let program = dir.file("program", &greeter("hello", 0));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let forward = format!("user,hostfwd=tcp:127.0.0.1:{port}-:22");
    let outcome = run(bare(&program).args(["--net", &forward]));
    assert_eq!(outcome.code(), 1);
    for word in ["--net", "127.0.0.1", &port, "another port"] {
        assert!(outcome.stderr.contains(word), "no `{word}` in: {}", outcome.stderr);
    }
    // The device tree does not need the port.
    let outcome = run(bare(&program).args(["--net", &forward, "--dump-dts"]));
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
}

/// A directory with a program `ssh` that prints what it is called with.
fn fake_ssh(dir: &Dir) -> PathBuf {
    let bin = dir.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("ssh"), "#!/bin/sh\necho \"$@\"\n").unwrap();
    std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn ssh_finds_the_guests_that_run() {
    let dir = Dir::new();
    let runtime = dir.path("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let bin = fake_ssh(&dir);
    let ssh = |args: &[&str]| {
        let mut command = hartvm();
        command.env("XDG_RUNTIME_DIR", &runtime).env("PATH", &bin).arg("ssh").args(args);
        run(&mut command)
    };
    let nobody = ssh(&[]);
    assert_eq!(nobody.code(), 2);
    assert!(
        nobody.stderr.contains("no guest runs") && nobody.stderr.contains("hostfwd=tcp"),
        "{}",
        nobody.stderr
    );

    let program = dir.file("program", &sleeper("asleep"));
    let mut command = bare(&program);
    command.env("XDG_RUNTIME_DIR", &runtime);
    command.args(["--name", "one", "--net", "user,hostfwd=tcp:127.0.0.1:0-:22"]);
    let guest = Running::start(&mut command);
    let files =
        || std::fs::read_dir(runtime.join("hartvm")).into_iter().flatten().flatten().collect::<Vec<_>>();
    let start = std::time::Instant::now();
    let known = || ssh(&["one"]).code() == 0;
    while !known() {
        assert!(start.elapsed() < LIMIT, "the guest is never found");
    }
    let text = std::fs::read_to_string(files()[0].path()).unwrap();
    let port = text.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap();
    let called =
        String::from_utf8(ssh(&["-l", "root", "-i", "key", "one", "--", "uname", "-a"]).stdout).unwrap();
    assert!(called.ends_with(&format!("-p {port} -l root -i key 127.0.0.1 uname -a\n")), "{called}");
    assert_eq!(String::from_utf8(ssh(&[port]).stdout), String::from_utf8(ssh(&[]).stdout));
    let other = ssh(&["two"]);
    assert_eq!(other.code(), 2);
    assert!(other.stderr.contains("there are: one"), "{}", other.stderr);

    // One of the same name is not started.
    let mut second = bare(&program);
    let outcome = run(second.env("XDG_RUNTIME_DIR", &runtime).args(["--name", "one"]));
    assert_eq!(outcome.code(), 1);
    assert!(outcome.stderr.contains("--name"), "{}", outcome.stderr);

    guest.signal(Signal::TERM);
    guest.finish();
    assert!(files().is_empty());

    // What a killed guest leaves is seen to be stale, and removed.
    let guest = Running::start(&mut command);
    while !known() {}
    guest.signal(Signal::KILL);
    let start = std::time::Instant::now();
    while ssh(&["one"]).code() == 0 {
        assert!(start.elapsed() < LIMIT, "a dead guest is found");
    }
    assert!(files().is_empty());
}

#[test]
fn without_an_ssh_program_the_package_is_named() {
    let dir = Dir::new();
    let mut command = hartvm();
    command.env("PATH", dir.path("")).args(["ssh", "2222"]);
    let outcome = run(&mut command);
    assert_eq!(outcome.code(), 1);
    assert!(outcome.stderr.contains("openssh-client"), "{}", outcome.stderr);
}
