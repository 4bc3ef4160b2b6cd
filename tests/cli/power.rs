//! How a run ends: what the guest asks of the test finisher, signals, and a host that does not take output.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::guest::{FAIL, PASS, Program, RESET, chatterbox, echo, greeter, sleeper};
use crate::support::{Dir, LIMIT, Running, bare, cpu_seconds, in_shell, run, wait};

#[test]
fn the_guest_chooses_the_exit_code() {
    let dir = Dir::new();
    // An exit status has eight bits, and a failure stays one.
    for (value, code) in
        [(PASS, 0), (FAIL | 1 << 16, 1), (FAIL | 42 << 16, 42), (FAIL | 256 << 16, 255), (FAIL, 1)]
    {
        let program = dir.file("program", &Program::new().print("hello\n").finish(value).halt().binary());
        let outcome = run(&mut bare(&program));
        assert_eq!(outcome.code(), code, "{value:#x}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, b"hello\n");
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn a_reset_starts_again_or_ends_the_run() {
    let dir = Dir::new();
    // What comes after the reset must not count, though the hart may get there before it is stopped.
    let mut program = Program::new();
    program.print("A").finish(RESET).finish(FAIL | 7 << 16).halt();
    let program = dir.file("program", &program.binary());
    let outcome = run(bare(&program).arg("--no-reboot"));
    assert_eq!((outcome.code(), &outcome.stdout[..]), (0, &b"A"[..]));

    let running = Running::start(&mut bare(&program));
    running.wait_for_output(4);
    running.signal(Signal::TERM);
    let outcome = running.finish();
    assert_eq!(outcome.code(), 128 + 15, "{}", outcome.stderr);
    assert!(outcome.stdout.iter().all(|&byte| byte == b'A'));
}

#[test]
fn signals_end_the_run_with_their_number() {
    let dir = Dir::new();
    let program = dir.file("program", &sleeper("."));
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1), (Signal::QUIT, 3)] {
        let running = Running::start(bare(&program).args(["--cpus", "4"]));
        running.wait_for_output(1);
        running.signal(signal);
        assert_eq!(running.finish().code(), 128 + number);
    }
}

#[test]
fn a_sleeping_guest_uses_no_processor() {
    let dir = Dir::new();
    let program = dir.file("program", &sleeper("."));
    let running = Running::start(bare(&program).args(["--cpus", "2"]));
    running.wait_for_output(2);
    let start = Instant::now();
    loop {
        let (since, before) = (Instant::now(), cpu_seconds(running.pid()));
        std::thread::sleep(Duration::from_secs(1));
        let used = cpu_seconds(running.pid()) - before;
        let elapsed = since.elapsed().as_secs_f64();
        if used <= 0.02 * elapsed {
            break;
        }
        // On a slow machine its start has not ended with its output.
        assert!(start.elapsed() < LIMIT, "{used} s of processor time in {elapsed} s, again and again");
    }
}

#[test]
fn input_comes_from_a_pipe_and_its_end_is_no_end_of_the_guest() {
    let dir = Dir::new();
    let program = dir.file("program", &echo());
    let mut running = Running::start(bare(&program).stdin(Stdio::piped()));
    let mut stdin = running.stdin();
    // No escape keys here: Ctrl-A is a byte like any other.
    stdin.write_all(b"hello\x01x\x03").unwrap();
    running.wait_for_output(9);
    stdin.write_all(b"q").unwrap();
    drop(stdin);
    let outcome = running.finish();
    assert_eq!((outcome.code(), &outcome.stdout[..]), (0, &b">hello\x01x\x03q"[..]));

    // Without its FIFO the port takes one byte at a time, each a turn of two threads. More than is read at a time.
    let long = vec![b'-'; 5_000];
    let mut running = Running::start(bare(&program).stdin(Stdio::piped()));
    let mut stdin = running.stdin();
    stdin.write_all(&long).unwrap();
    stdin.write_all(b"q").unwrap();
    drop(stdin);
    let outcome = running.finish();
    assert_eq!(outcome.stdout.len(), 1 + long.len() + 1, "nothing is lost");
}

#[test]
fn standard_streams_may_be_closed() {
    let dir = Dir::new();
    let program = dir.file("program", &chatterbox(200_000, 5));
    for closed in ["exec <&-", "exec >&-", "exec <&- >&- 2>&-", "exec > /dev/full"] {
        let outcome = run(&mut in_shell(closed, &bare(&program)));
        assert_eq!(outcome.code(), 5, "{closed}: {}", outcome.stderr);
    }
    let mut command = bare(&program);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(5), "a pipe without a reader");
}

#[test]
fn output_that_nobody_reads_does_not_stop_the_guest() {
    let dir = Dir::new();
    let program = dir.file("program", &chatterbox(300_000, 5));
    let mut child = bare(&program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(wait(&mut child).code(), Some(5));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert!(!output.is_empty() && output.iter().all(|&byte| byte == b'.'));
}

#[test]
fn all_output_arrives_before_the_end() {
    let dir = Dir::new();
    let program = dir.file("program", &chatterbox(150_000, 0));
    assert_eq!(run(&mut bare(&program)).stdout.len(), 150_000);
    let program = dir.file("program", &greeter("last words", 9));
    for _ in 0..5 {
        let outcome = run(&mut bare(&program));
        assert_eq!((outcome.code(), &outcome.stdout[..]), (9, &b"last words"[..]));
    }
}
