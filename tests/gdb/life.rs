//! Attaching, interrupting, leaving, and ends of all kinds.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::debugger::{CONTINUE, ENGINES, Guest, in_order};
use crate::guests::{VARIABLE, printer, spinner, watcher_of_time};
use crate::remote::Remote;
use crate::support::{Dir, LIMIT, Running, bare, refused, wait};

#[test]
fn a_spinning_guest_is_interrupted() {
    for engine in ENGINES {
        let guest = Guest::start(&spinner(), engine, &["--cpus", "2"]);
        guest.wait_until_it_spins(2);
        let mut gdb = guest.start_gdb(&format!(
            "{CONTINUE}info threads\nprint $pc >= (long)&spin && $pc < (long)&sleep\nprint *(long*)&variable > 0\n",
        ));
        gdb.wait_for_continue();
        kill_process(gdb.pid(), Signal::INT).unwrap();
        let output = gdb.finish();
        in_order(&output, &["received signal SIGINT", "hart 0, M-mode)", "in WFI", "= 1", "= 1"]);
    }
}

#[test]
fn a_guest_outlives_a_debugger_that_is_killed_and_another_attaches() {
    for engine in ENGINES {
        let program = spinner();
        let guest = Guest::start(&program, engine, &["--cpus", "2"]);
        // The first dies while the guest stands at a breakpoint, the second while it runs, with a breakpoint that is not met.
        let mut first = guest
            .start_gdb("break *spin\ncontinue\nprintf \"there\\n\"\npython import time; time.sleep(3600)\n");
        first.wait_for("there\n");
        kill_process(first.pid(), Signal::KILL).unwrap();
        drop(first);
        let counts = |guest: &Guest| {
            let mut remote = Remote::attach(guest);
            let start = remote.u64(VARIABLE);
            assert_eq!(remote.ask("D;1"), "OK");
            drop(remote);
            let limit = Instant::now();
            loop {
                std::thread::sleep(Duration::from_millis(20));
                let mut remote = Remote::attach(guest);
                if remote.u64(VARIABLE) > start {
                    return;
                }
                drop(remote);
                assert!(limit.elapsed() < LIMIT, "the guest does not go on");
            }
        };
        counts(&guest);
        let mut second = guest.start_gdb(&format!("hbreak *sleep\nwatch *(long*)0x80002000\n{CONTINUE}"));
        second.wait_for_continue();
        kill_process(second.pid(), Signal::KILL).unwrap();
        drop(second);
        counts(&guest);
        // Nothing is left of their breakpoints.
        let output = guest.gdb("break *spin\ncontinue\ndelete\ndetach\n");
        in_order(&output, &["hit Breakpoint 1", "detached"]);
        counts(&guest);
    }
}

#[test]
fn the_exit_code_of_a_guest_reaches_the_debugger() {
    for engine in ENGINES {
        let guest = Guest::waiting(&printer(), engine, &[]);
        let output = guest.gdb("break *printed\ncontinue\ndelete\nset var *(long*)&variable = 1\ncontinue\n");
        in_order(&output, &["Breakpoint 1, 0x", "exited with code 07"]);
        assert_eq!(guest.finish().code(), 7);
    }
}

#[test]
fn kill_ends_the_machine_and_detaching_does_not() {
    for engine in ENGINES {
        let guest = Guest::waiting(&printer(), engine, &[]);
        let output = guest.gdb("detach\n");
        in_order(&output, &["detached"]);
        let start = Instant::now();
        while guest.output().is_empty() {
            assert!(start.elapsed() < LIMIT, "the guest does not go on");
        }
        let output = guest.gdb("kill\n");
        in_order(&output, &["killed"]);
        assert_eq!(guest.finish().code(), 0);
    }
}

#[test]
fn a_reset_stops_at_the_first_instruction() {
    for engine in ENGINES {
        let program = spinner();
        let guest = Guest::waiting(&program, engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        let (reset, spin) = (remote.pc(), program.address("spin"));
        for round in 0..3 {
            assert_eq!(remote.ask(&format!("Z0,{spin:x},4")), "OK", "{round}");
            assert_eq!(remote.ask("vCont;c"), "T05thread:p01.01;swbreak:;");
            assert_eq!(remote.pc(), spin);
            assert!(remote.monitor("reset").contains("at its first instruction"));
            assert_eq!(remote.pc(), reset);
            // Breakpoints outlive it.
            assert_eq!(remote.ask("vCont;c"), "T05thread:p01.01;swbreak:;");
            assert_eq!(remote.ask(&format!("z0,{spin:x},4")), "OK");
            assert!(remote.monitor("reset").contains("at its first instruction"));
        }
    }
}

#[test]
fn the_guests_time_does_not_pass_while_it_is_held() {
    const PAUSE: Duration = Duration::from_millis(1500);
    const NANOSECONDS_PER_TICK: u64 = 100;
    /// Ticks for what is rounded: a millisecond.
    const SLACK: u64 = 10_000;
    for engine in ENGINES {
        let program = watcher_of_time();
        let guest = Guest::waiting(&program, engine, &[]);
        let mut remote = Remote::attach(&guest);
        assert_eq!(remote.ask(&format!("Z0,{:x},4", program.address("read"))), "OK");
        remote.ask("vCont;c");
        let mut read = || {
            remote.ask("vCont;s:p1.1");
            let time = remote.register(10).unwrap();
            remote.ask("vCont;s:p1.1");
            time
        };
        let start = Instant::now();
        let before = read();
        let pause = Instant::now();
        std::thread::sleep(PAUSE);
        let pause = pause.elapsed();
        let passed = read() - before;
        let free = (start.elapsed() - pause).as_nanos() as u64 / NANOSECONDS_PER_TICK;
        assert!((1..=free + SLACK).contains(&passed), "{passed} ticks, of which it had {free}");
    }
}

#[test]
fn a_signal_ends_hartvm_while_the_guest_is_held() {
    for engine in ENGINES {
        let guest = Guest::waiting(&spinner(), engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        assert!(remote.pc() > 0);
        guest.signal(Signal::TERM);
        assert_eq!(guest.finish().code(), 128 + 15);
    }
}

#[test]
fn only_one_debugger_is_served() {
    let guest = Guest::start(&spinner(), "interp", &[]);
    let mut remote = Remote::attach(&guest);
    let second = UnixStream::connect(guest.socket()).unwrap();
    second.set_read_timeout(Some(LIMIT)).unwrap();
    let mut byte = [0];
    assert!(matches!(std::io::Read::read(&mut &second, &mut byte), Ok(0) | Err(_)));
    assert!(remote.pc() > 0);
}

#[test]
fn monitor_commands_answer() {
    for engine in ENGINES {
        let guest = Guest::waiting(&spinner(), engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        let help = remote.monitor("help");
        for command in ["registers", "walk", "phys", "devices", "reset"] {
            assert!(help.contains(&format!("monitor {command}")), "{help}");
        }
        assert!(remote.monitor("devices").contains("uart16550, interrupt 10"));
        assert!(remote.monitor("registers").contains("mhartid        0x0000000000000000"));
        assert!(remote.monitor("walk 0x80000000").contains("satp.MODE is Bare"));
        let (pc, walk) = (remote.pc(), remote.monitor("walk $pc 0"));
        assert!(
            walk.starts_with("hart 0, M-mode") && walk.contains(&format!("{pc:#x} is physical")),
            "{walk}"
        );
        assert!(remote.monitor("walk mtvec").contains("0x0 is physical"));
        // Whatever gdb has read last, another hart can be named.
        remote.select(0);
        assert!(remote.monitor("registers 1").contains("mhartid        0x0000000000000001"));
        remote.select(1);
        assert!(remote.monitor("registers").starts_with("hart 1, "));
        assert!(remote.monitor("registers 0").starts_with("hart 0, "));
        assert_eq!(remote.monitor("phys 0x80002000 = 0x12345678 4"), "");
        assert_eq!(remote.monitor("phys 0x80002000 2 4"), "0x80002000: 0x12345678\n0x80002004: 0x00000000\n");
        assert_eq!(remote.u64(0x8000_2000), 0x1234_5678);
        // The magic value of virtio devices, which only answers accesses of four bytes.
        assert_eq!(remote.monitor("phys 0x10001000 1 4"), "0x10001000: 0x74726976\n");
        for wrong in [
            "phys 0",
            "phys x",
            "phys 0x80000000 5000",
            "phys 0x80000000 1 3",
            "phys 0x80000000 = 256 1",
            "walk",
            "walk $nonsense",
            "walk 0 2",
            "registers x",
            "nonsense",
        ] {
            assert!(remote.monitor(wrong).starts_with("error: "), "{wrong}");
        }
    }
}

#[test]
fn places_where_gdb_cannot_attach_are_refused() {
    let dir = Dir::new();
    let kernel = dir.file("kernel", &[0x13, 0, 0, 0]);
    let kernel = kernel.to_str().unwrap();
    let args = |gdb: &str| -> Vec<String> {
        ["run", "--firmware", "none", "--kernel", kernel, "--gdb", gdb].map(String::from).to_vec()
    };
    for wrong in ["x", "host:port", "70000", ""] {
        refused(&args(wrong), 2, &["--gdb", "want PORT, ADDR:PORT"]);
    }
    refused(&["run", "--kernel", kernel, "--gdb-wait"], 2, &["--gdb"]);
    let file = dir.file("file", b"precious");
    refused(&args(file.to_str().unwrap()), 1, &["--gdb", "cannot wait for gdb at", "file"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&args(&taken.local_addr().unwrap().to_string()), 1, &["--gdb", "127.0.0.1"]);
}

#[test]
fn the_socket_is_opened_as_qemus_user_says_it() {
    let guest = Guest::as_in_qemu(&printer());
    let output =
        guest.gdb("break *printed\ncontinue\nprint $priv\ndelete\nset var *(long*)&variable = 1\ncontinue\n");
    in_order(&output, &["Breakpoint 1, 0x", "= 3", "exited with code 07"]);
    assert_eq!(guest.finish().code(), 7);
}

#[test]
fn a_free_tcp_port_is_chosen_and_told() {
    let dir = Dir::new();
    let mut command = bare(&dir.file("program", &spinner().elf()));
    let mut child = command.args(["--gdb", "0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("gdb can attach: target remote ").expect("the address is told");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"$k#6b").unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn the_socket_of_a_run_that_was_killed_is_replaced_and_removed_at_the_end() {
    let dir = Dir::new();
    let socket = dir.path("socket");
    drop(UnixListener::bind(&socket).unwrap());
    let mut command = bare(&dir.file("program", &spinner().elf()));
    let running = Running::start(command.arg("--gdb").arg(&socket));
    let start = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
    };
    stream.write_all(b"$k#6b").unwrap();
    assert_eq!(running.finish().code(), 0);
    assert!(!socket.exists());
}
