//! Watchpoints on memory and on device registers.

use crate::debugger::{ENGINES, Guest, in_order};
use crate::guests::{UART, VARIABLE, counter, printer};
use crate::remote::Remote;

#[test]
fn a_variable_is_watched_for_changes_and_reads() {
    for engine in ENGINES {
        let output = Guest::waiting(&counter(), engine, &[]).gdb(
            "watch *(long*)&variable\ncontinue\nx/i $pc\ncontinue\ndelete\n\
             rwatch *(long*)&variable\ncontinue\nx/i $pc\ncontinue\ndelete\n\
             awatch *(long*)&variable\ncontinue\nx/i $pc\ncontinue\nx/i $pc\n",
        );
        in_order(
            &output,
            &[
                "Old value = 0\nNew value = 1\n",
                "<stored>:",
                "Old value = 1\nNew value = 2\n",
                "Hardware read watchpoint 2: *(long*)&variable\n\nValue = 2",
                "<increment>:",
                "Value = 3\n",
                "Hardware access (read/write) watchpoint 3: *(long*)&variable\n\nOld value = 3\nNew value = 4",
                "<stored>:",
                "Hardware access (read/write) watchpoint 3: *(long*)&variable\n\nValue = 4",
                "<increment>:",
            ],
        );
    }
}

#[test]
fn accesses_of_all_harts_are_seen_and_none_is_lost() {
    for engine in ENGINES {
        let guest = Guest::waiting(&counter(), engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        let watched = format!("2,{VARIABLE:x},10");
        assert_eq!(remote.ask(&format!("Z{watched}")), "OK");
        let mut counts = [0; 2];
        for round in 0..200 {
            // Together who comes first is up to the host, so now and then each is alone.
            let alone = [None, Some(0), Some(1)][if round % 10 < 8 { 0 } else { round % 10 - 7 }];
            let stop = match alone {
                Some(hart) => remote.ask(&format!("vCont;c:p1.{}", hart + 1)),
                None => remote.ask("vCont;c"),
            };
            let hart = usize::from(stop.starts_with("T05thread:p01.02;"));
            assert_eq!(alone.unwrap_or(hart), hart, "the other hart holds");
            let address = VARIABLE + 8 * hart as u64;
            assert_eq!(stop, format!("T05thread:p01.{:02};watch:{address:x};", hart + 1));
            // The store has not been made yet.
            assert_eq!(remote.u64(address), counts[hart]);
            remote.step_over(hart, &watched);
            counts[hart] += 1;
            assert_eq!(remote.u64(address), counts[hart]);
        }
        assert!(counts.iter().all(|&count| count >= 20), "{counts:?}");
        assert_eq!(remote.ask(&format!("z{watched}")), "OK");
        remote.send("vCont;c");
        remote.send_raw(&[3]);
        remote.answer();
    }
}

#[test]
fn bytes_beside_the_watched_ones_are_not_watched() {
    for engine in ENGINES {
        let program = counter();
        let guest = Guest::waiting(&program, engine, &[]);
        let mut remote = Remote::attach(&guest);
        // The byte before and the byte after, and one in the middle for reads that are also no stores.
        for place in [format!("4,{:x},1", VARIABLE - 1), format!("4,{:x},8", VARIABLE + 8)] {
            assert_eq!(remote.ask(&format!("Z{place}")), "OK");
        }
        assert_eq!(remote.ask(&format!("Z0,{:x},4", program.address("eighth"))), "OK");
        assert!(remote.ask("vCont;c").contains("swbreak"));
        assert_eq!(remote.u64(VARIABLE), 8);
        let middle = format!("{:x},1", VARIABLE + 3);
        assert_eq!(remote.ask(&format!("Z3,{middle}")), "OK");
        remote.step_over(0, &format!("0,{:x},4", program.address("eighth")));
        let stop = remote.ask("vCont;c");
        assert_eq!(stop, format!("T05thread:p01.01;rwatch:{:x};", VARIABLE + 3));
        assert_eq!(remote.pc(), program.address("work"));
        // A step does not slip past it either.
        assert_eq!(remote.ask("vCont;s:p1.1"), stop);
    }
}

#[test]
fn a_device_register_is_watched() {
    for engine in ENGINES {
        let guest = Guest::waiting(&printer(), engine, &[]);
        let script = format!("watch *(char*){UART:#x}\nrwatch *(char*){UART:#x}\nawatch *(char*){UART:#x}\n");
        // gdb itself hides stores that change nothing, which it finds out by reading the register.
        let output = guest.gdb(&format!("{script}delete 1\ndelete 2\ncontinue\nx/i $pc\n"));
        in_order(&output, &["(read/write) watchpoint 3: *(char*)0x10000000\n\nValue = ", "<printed>:"]);

        let program = printer();
        let guest = Guest::waiting(&program, engine, &[]);
        let mut remote = Remote::attach(&guest);
        assert_eq!(remote.ask(&format!("Z2,{UART:x},1")), "OK");
        for count in 1..=5 {
            assert_eq!(remote.ask("vCont;c"), format!("T05thread:p01.01;watch:{UART:x};"));
            assert_eq!(remote.pc(), program.address("print"));
            remote.step_over(0, &format!("2,{UART:x},1"));
            assert_eq!(guest_output(&guest, count), vec![b'x'; count]);
        }
        assert_eq!(remote.ask(&format!("z2,{UART:x},1")), "OK");
        assert_eq!(remote.ask(&format!("M{VARIABLE:x},1:01")), "OK");
        assert_eq!(remote.ask("vCont;c"), "W07");
    }
}

/// What the guest has printed, which has to be as much as `count` characters soon.
fn guest_output(guest: &Guest, count: usize) -> Vec<u8> {
    let start = std::time::Instant::now();
    while guest.output().len() < count && start.elapsed() < crate::support::LIMIT {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    guest.output()
}
